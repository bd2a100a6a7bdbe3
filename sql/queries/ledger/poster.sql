-- name: locked_accounts
-- The accounts of the given codes whose rows another transaction has locked at this moment.
SELECT code FROM ledger_locked_accounts($1);
