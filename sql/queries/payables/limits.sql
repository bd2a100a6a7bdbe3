-- name: outgoing
-- One row: the amount available in the account of code $1, the money and uses of an hour and of this UTC day, the
-- account's own limits on them, the time, and the minutes of the hour that were used, oldest first.
WITH account AS (
    SELECT a.id, a.transfer_max, a.balance - a.held - coalesce(a.floor, 0) AS available, clock_timestamp() AS read_at
    FROM accounts AS a
    WHERE a.code = $1
)

SELECT
    u.hour_sum, u.hour_uses, u.day_sum, u.day_uses, u.hour_amount_max, u.hour_count_max, u.day_amount_max,
    u.day_count_max, account.transfer_max, account.read_at, account.available,
    array(
        SELECT w.bucket FROM window_usage AS w
        WHERE
            w.account_id = account.id AND w.span = 'm'
            AND w.bucket > date_trunc('minute', account.read_at - interval '1 hour', 'UTC')
        ORDER BY w.bucket
    ) AS minutes,
    array(
        SELECT w.amount FROM window_usage AS w
        WHERE
            w.account_id = account.id AND w.span = 'm'
            AND w.bucket > date_trunc('minute', account.read_at - interval '1 hour', 'UTC')
        ORDER BY w.bucket
    ) AS amounts,
    array(
        SELECT w.uses FROM window_usage AS w
        WHERE
            w.account_id = account.id AND w.span = 'm'
            AND w.bucket > date_trunc('minute', account.read_at - interval '1 hour', 'UTC')
        ORDER BY w.bucket
    ) AS uses
FROM account
CROSS JOIN LATERAL ledger_window_usage(ARRAY[account.id], account.read_at) AS u;

-- name: give_back
-- The number of buckets of limits that got back what the holds of the payables $1 had used up.
SELECT limits_give_back($1::uuid[]) AS changed;
