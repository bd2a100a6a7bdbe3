-- name: outgoing
-- One row: what the account of code $1 has available, and what it has sent within an hour and this UTC day.
SELECT
    u.hour_sum,
    u.hour_uses,
    u.day_sum,
    a.balance - a.held - coalesce(a.floor, 0) AS available
FROM accounts AS a
CROSS JOIN LATERAL ledger_window_usage(ARRAY[a.id], clock_timestamp()) AS u
WHERE a.code = $1;
