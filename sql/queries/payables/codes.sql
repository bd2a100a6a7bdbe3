-- name: account_states
-- Rows of the accounts of the codes $1: code, state. An unknown code has no row.
SELECT code, state FROM accounts WHERE code = ANY($1::text[]);
