-- name: account_owner
-- The principal who opened the account, and who is told of what happens to it.
SELECT profile.created_by FROM accounts AS account
INNER JOIN account_profiles AS profile ON account.id = profile.account_id
WHERE account.code = $1;
