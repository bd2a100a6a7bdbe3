-- name: list_merchants
-- Up to $2 present and former merchants with ids above $1: id, wallet_id.
SELECT id, wallet_id FROM users
WHERE (is_merchant OR merchant_since IS NOT NULL) AND id > $1
ORDER BY id
LIMIT $2;

-- name: statement_span
-- One row: the currency of the account of code $1, and the span of its entries from $2 to $3, both included: versions
-- above first_after up to last.
SELECT
    a.currency,
    ledger_version_at(a.id, $2::timestamptz - interval '1 microsecond') AS first_after,
    ledger_version_at(a.id, $3::timestamptz) AS last
FROM accounts AS a
WHERE a.code = $1;

-- name: statement_lines
-- The lines of direction $4 on the account of code $1 with versions above $2 up to $3, oldest first: recorded_at,
-- amount, transfer_id.
SELECT l.recorded_at, l.amount, l.transfer_id
FROM merchant_lines($1, $2, $3) AS l
WHERE l.direction = $4
ORDER BY l.version;

-- name: statement_totals
-- One row: the sums of the lines on the account of code $1 with versions above $2 up to $3, 2^62 - 1 at most.
SELECT
    least(coalesce(sum(l.amount) FILTER (WHERE l.direction = 'in'), 0), 4611686018427387903)::bigint AS gross,
    least(coalesce(-sum(l.amount) FILTER (WHERE l.direction = 'fee'), 0), 4611686018427387903)::bigint AS fees,
    least(coalesce(-sum(l.amount) FILTER (WHERE l.direction = 'refund'), 0), 4611686018427387903)::bigint AS refunds
FROM merchant_lines($1, $2, $3) AS l;
