-- name: wallet_entries
-- The entries of the account of code $1 with versions from $2 down to $3, newest first: transfer_id, kind, amount,
-- recorded_at, version. Versions are dense, so a range of them is a page.
SELECT t.id AS transfer_id, t.kind, e.amount, b.recorded_at, e.version
FROM entries AS e
INNER JOIN batches AS b ON b.seq = batch_of(e.no)
INNER JOIN transfers AS t ON t.no = item_of(e.no)
WHERE e.account_id = (SELECT a.id FROM accounts AS a WHERE a.code = $1) AND e.version BETWEEN $3 AND $2
ORDER BY e.version DESC;

-- name: wallet_balance
-- One row: balance, amount held, currency and number of entries (version) of the account of code $1.
SELECT balance, held, currency, version FROM accounts WHERE code = $1;
