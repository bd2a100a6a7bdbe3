-- name: create_subscription
-- Store a subscription that is charged at $7 for the first time, and return it.
INSERT INTO subscriptions (id, payer_id, merchant_id, amount, currency, interval_days, next_charge_at, try_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
RETURNING
    id, payer_id, merchant_id, amount, currency, interval_days, state, next_charge_at, try_at, attempts, last_error,
    missed_periods, last_transfer_id, created_at;

-- name: find_subscription
-- One row: the subscription $1.
SELECT
    id, payer_id, merchant_id, amount, currency, interval_days, state, next_charge_at, try_at, attempts, last_error,
    missed_periods, last_transfer_id, created_at
FROM subscriptions WHERE id = $1;

-- name: subscriptions_of
-- The newest $2 subscriptions that the user $1 pays.
SELECT
    id, payer_id, merchant_id, amount, currency, interval_days, state, next_charge_at, try_at, attempts, last_error,
    missed_periods, last_transfer_id, created_at
FROM subscriptions
WHERE payer_id = $1
ORDER BY created_at DESC, id DESC
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
    attempts = 0, updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'canceled';
