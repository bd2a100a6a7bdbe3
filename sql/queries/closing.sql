-- name: lock_closed_dates
-- Waits for the postings that have read a closed date, and holds up those that want to.
LOCK TABLE closed_dates IN SHARE ROW EXCLUSIVE MODE;

-- name: closed_date
-- The closed date of currency $1 as it stands, and whether the time $2 is over for a minute: postings without an
-- effective time that are under way take effect when they are recorded, which is later than that.
SELECT d.closed_before, d.revision, coalesce($2 <= clock_timestamp() - interval '1 minute', TRUE) AS is_over
FROM (VALUES ($1::text)) AS w (currency)
LEFT JOIN closed_dates AS d ON w.currency = d.currency;

-- name: move_closed_date
-- The closed date of currency $1 after its move to $2.
INSERT INTO closed_dates AS d (currency, closed_before) VALUES ($1, $2)
ON CONFLICT (currency) DO UPDATE
    SET closed_before = excluded.closed_before, revision = d.revision + 1, moved_at = clock_timestamp()
RETURNING d.currency, d.closed_before, d.revision, d.moved_at;

-- name: closed_dates
-- The closed dates after currency $1, $2 at most.
SELECT d.currency, d.closed_before, d.revision, d.moved_at FROM closed_dates AS d
WHERE d.currency > coalesce($1::text, '')
ORDER BY d.currency
LIMIT $2;

-- name: get_closed_date
-- The closed date of currency $1.
SELECT d.currency, d.closed_before, d.revision, d.moved_at FROM closed_dates AS d
WHERE d.currency = $1;
