-- name: create_subscription
-- Store a subscription that is charged at $7 for the first time, and return it. It goes by $8 months from $9 on unless
-- they are null.
INSERT INTO subscriptions (
    id, payer_id, merchant_id, amount, currency, interval_days, next_charge_at, try_at, interval_months, anchor
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9)
RETURNING
    id, payer_id, merchant_id, amount, currency, interval_days, interval_months, anchor, state, next_charge_at, try_at,
    attempts, last_error, missed_periods, last_transfer_id, created_at;

-- name: find_subscription
-- One row: the subscription $1.
SELECT
    id, payer_id, merchant_id, amount, currency, interval_days, interval_months, anchor, state, next_charge_at, try_at,
    attempts, last_error, missed_periods, last_transfer_id, created_at
FROM subscriptions WHERE id = $1;

-- name: subscriptions_of
-- The newest $2 subscriptions that the user $1 pays: of the status $3 unless null, in which past due counts as active,
-- and before the subscription $4 unless null.
SELECT
    s.id, s.payer_id, s.merchant_id, s.amount, s.currency, s.interval_days, s.interval_months, s.anchor, s.state,
    s.next_charge_at, s.try_at, s.attempts, s.last_error, s.missed_periods, s.last_transfer_id, s.created_at
FROM subscriptions AS s
WHERE
    s.payer_id = $1
    AND ($3::text IS NULL OR $3 = CASE s.state WHEN 'past_due' THEN 'active' ELSE s.state END)
    AND (s.created_at, s.id) < (
        CASE
            WHEN $4::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM subscriptions AS b WHERE b.id = $4)
        END,
        coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY s.created_at DESC, s.id DESC
LIMIT $2;

-- name: subscriptions_to
-- The newest $2 subscriptions by which the user $1 is paid: as in subscriptions_of.
SELECT
    s.id, s.payer_id, s.merchant_id, s.amount, s.currency, s.interval_days, s.interval_months, s.anchor, s.state,
    s.next_charge_at, s.try_at, s.attempts, s.last_error, s.missed_periods, s.last_transfer_id, s.created_at
FROM subscriptions AS s
WHERE
    s.merchant_id = $1
    AND ($3::text IS NULL OR $3 = CASE s.state WHEN 'past_due' THEN 'active' ELSE s.state END)
    AND (s.created_at, s.id) < (
        CASE
            WHEN $4::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM subscriptions AS b WHERE b.id = $4)
        END,
        coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY s.created_at DESC, s.id DESC
LIMIT $2;

-- name: cancel_subscription
-- End the subscription $1; no row comes back when it has ended already.
UPDATE subscriptions SET state = 'canceled', updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'canceled'
RETURNING id;

-- name: force_subscription_due
-- Let the next period of the subscription $1 begin a minute ago. No row comes back.
UPDATE subscriptions
SET
    next_charge_at = clock_timestamp() - interval '1 minute', try_at = clock_timestamp() - interval '1 minute',
    anchor = CASE WHEN interval_months IS NOT NULL THEN clock_timestamp() - interval '1 minute' END,
    attempts = 0, updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'canceled';
