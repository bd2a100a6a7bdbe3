-- name: outgoing
-- One row: the amount available in the account of code $1, and the money and uses of an hour and of this UTC day.
SELECT
    u.hour_sum,
    u.hour_uses,
    u.day_sum,
    a.balance - a.held - coalesce(a.floor, 0) AS available
FROM accounts AS a
CROSS JOIN LATERAL ledger_window_usage(ARRAY[a.id], clock_timestamp()) AS u
WHERE a.code = $1;
