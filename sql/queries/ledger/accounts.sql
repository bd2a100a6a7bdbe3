-- name: open_accounts
-- A row a code: the account's id, and whether this call opened it.
SELECT account_code, account_id, opened FROM ledger_open_accounts($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: change_account
-- Null, or the cause of a refusal.
SELECT refused FROM ledger_change_account($1, $2, $3, $4, $5, $6);

-- name: account_opening
-- The data of the account's first event.
SELECT e.data FROM account_events AS e WHERE e.account_id = $1 ORDER BY e.no LIMIT 1;

-- name: get_account
-- The account of this code, whole.
SELECT
    a.id, a.code, a.currency, a.balance, a.held, a.incoming, a.version, a.version + a.changes AS revision, a.floor,
    a.ceiling, a.transfer_max, a.state,
    w.hour_amount_max, w.hour_count_max, w.day_amount_max, w.day_count_max, p.metadata, p.created_at, a.recorded_at
FROM accounts AS a
INNER JOIN account_profiles AS p ON a.id = p.account_id
LEFT JOIN account_windows AS w ON a.id = w.account_id
WHERE a.code = $1;

-- name: list_accounts
-- A page of accounts by code, after $1; null filters do not filter.
SELECT
    a.id, a.code, a.currency, a.balance, a.held, a.incoming, a.version, a.version + a.changes AS revision, a.floor,
    a.ceiling, a.transfer_max, a.state,
    w.hour_amount_max, w.hour_count_max, w.day_amount_max, w.day_count_max, p.metadata, p.created_at, a.recorded_at
FROM accounts AS a
INNER JOIN account_profiles AS p ON a.id = p.account_id
LEFT JOIN account_windows AS w ON a.id = w.account_id
WHERE
    a.code > coalesce($1::text, '')
    AND ($2::text IS NULL OR a.currency = $2)
    AND ($3::smallint IS NULL OR a.state = $3)
    AND ($4::text IS NULL OR (a.code >= $4 AND starts_with(a.code, $4)))
ORDER BY a.code
LIMIT $5;

-- name: balance_at_recorded
-- Version and balance of the account of code $1 as they had been recorded by $2.
SELECT a.currency, v.version, coalesce(e.balance, 0) AS balance
FROM accounts AS a
CROSS JOIN LATERAL ledger_version_at(a.id, $2) AS v (version)
LEFT JOIN entries AS e ON e.account_id = a.id AND e.version = v.version
WHERE a.code = $1;

-- name: balance_at_effective
-- Version of the account of code $1 recorded by $2, and the balance by effective time: entries recorded by then, less
-- those that take effect later, plus those recorded later that take effect by then.
SELECT
    a.currency, v.version,
    coalesce(e.balance, 0)
    - coalesce((
        SELECT sum(b.amount) FROM backdated_entries AS b
        WHERE b.account_id = a.id AND b.effective_at > $2 AND b.recorded_at <= $2
    ), 0)
    + coalesce((
        SELECT sum(b.amount) FROM backdated_entries AS b
        WHERE b.account_id = a.id AND b.effective_at <= $2 AND b.recorded_at > $2
    ), 0) AS balance
FROM accounts AS a
CROSS JOIN LATERAL ledger_version_at(a.id, $2) AS v (version)
LEFT JOIN entries AS e ON e.account_id = a.id AND e.version = v.version
WHERE a.code = $1;

-- name: statement_up
-- A page of an account's entries after version $2, up to version $3, oldest first.
SELECT
    e.version, e.amount, e.balance, b.recorded_at, coalesce(t.effective_at, b.recorded_at) AS effective_at,
    t.id AS transfer, t.kind, t.reference
FROM entries AS e
INNER JOIN batches AS b ON b.seq = batch_of(e.no)
INNER JOIN transfers AS t ON t.no = item_of(e.no)
WHERE e.account_id = $1 AND e.version > $2 AND e.version <= $3
ORDER BY e.version
LIMIT $4;

-- name: statement_down
-- A page of an account's entries above version $2 and below version $3, newest first.
SELECT
    e.version, e.amount, e.balance, b.recorded_at, coalesce(t.effective_at, b.recorded_at) AS effective_at,
    t.id AS transfer, t.kind, t.reference
FROM entries AS e
INNER JOIN batches AS b ON b.seq = batch_of(e.no)
INNER JOIN transfers AS t ON t.no = item_of(e.no)
WHERE e.account_id = $1 AND e.version > $2 AND e.version < $3
ORDER BY e.version DESC
LIMIT $4;

-- name: version_at
-- The version of the account's last entry that was recorded at or before $2.
SELECT ledger_version_at($1, $2);
