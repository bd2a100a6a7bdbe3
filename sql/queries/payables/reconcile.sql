-- name: last_account
-- The highest id of an account, 0 without accounts.
SELECT coalesce(max(a.id), 0) FROM accounts AS a;

-- name: wallet_mismatches
-- A row for each account $1 < id <= $2 whose balance is not the sum of its entries: code, balance, ledger_sum.
SELECT c.code, c.balance, c.ledger_sum
FROM (
    SELECT
        a.id, a.code, a.balance,
        coalesce((SELECT sum(e.amount) FROM entries AS e WHERE e.account_id = a.id), 0)::bigint AS ledger_sum
    FROM accounts AS a
    WHERE a.id > $1 AND a.id <= $2
) AS c
WHERE c.balance <> c.ledger_sum
ORDER BY c.id;

-- name: transfer_issues
-- A row for each transfer of the batches $1 < batch <= $2 whose entries are not two or more that sum to zero in each
-- currency: id, entries, off (the least sum that is not zero), system (whether a system account is in it), orphans
-- (entries of accounts that do not exist).
SELECT
    c.id, sum(c.legs)::bigint AS entries, min(c.total) FILTER (WHERE c.total <> 0)::bigint AS off,
    bool_or(c.system) AS system, sum(c.orphans)::bigint AS orphans
FROM (
    SELECT
        t.no, t.id, a.currency, count(e.no) AS legs, coalesce(sum(e.amount), 0) AS total,
        coalesce(bool_or(starts_with(a.code, 'system:')), FALSE) AS system,
        count(e.no) FILTER (WHERE a.id IS NULL) AS orphans
    FROM transfers AS t
    LEFT JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND item_of(e.no) = t.no
    LEFT JOIN accounts AS a ON e.account_id = a.id
    WHERE t.no > last_no($1) AND t.no <= last_no($2)
    GROUP BY t.no, t.id, a.currency
) AS c
GROUP BY c.no, c.id
HAVING sum(c.legs) < 2 OR bool_or(c.total <> 0) OR sum(c.orphans) > 0
ORDER BY c.no;

-- name: lock_accounts
-- Lock the accounts of codes $1: nobody else posts to them until this transaction ends. The rows are empty.
SELECT FROM accounts AS a
WHERE a.code = any((SELECT $1::text[])::text[])
ORDER BY a.id
FOR NO KEY UPDATE;

-- name: drift
-- One row: the currency of the account of code $1, its balance less the sum of its entries, and whether the entries
-- agree with each other: the running balance of the last entry is the sum, and its version is the account's.
SELECT
    a.currency, (a.balance - s.total)::bigint AS drift,
    coalesce(l.balance, 0) = s.total AND coalesce(l.version, 0) = a.version AND s.entries = a.version AS sound
FROM accounts AS a
INNER JOIN LATERAL (
    SELECT coalesce(sum(e.amount), 0) AS total, count(e.no) AS entries FROM entries AS e
    WHERE e.account_id = a.id
) AS s ON TRUE
LEFT JOIN LATERAL (
    SELECT e.balance, e.version FROM entries AS e
    WHERE e.account_id = a.id
    ORDER BY e.version DESC
    LIMIT 1
) AS l ON TRUE
WHERE a.code = $1;

-- name: take_drift_out
-- Take $2 minor units out of the balance of the account of code $1. No row comes back. Only the owner of the schema may
-- do that, and the same transaction then writes the entries that show the drift.
UPDATE accounts SET balance = balance - $2 WHERE code = $1;
