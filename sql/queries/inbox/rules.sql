-- name: account_owner
-- The principal who opened the account, and to whom events about it go.
SELECT profile.created_by FROM accounts AS account
INNER JOIN account_profiles AS profile ON account.id = profile.account_id
WHERE account.code = $1;
