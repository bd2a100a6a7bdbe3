-- name: subscriptions_due
-- Up to $1 subscriptions that are to be charged, longest due first.
SELECT id, payer_id, merchant_id FROM subscriptions
WHERE state <> 'canceled' AND try_at <= now()
ORDER BY try_at, id
LIMIT $1;

-- name: lock_subscription_due
-- The subscription $1, locked, and the time; no row comes back when it is not due any more or another charger has it.
SELECT
    id, payer_id, merchant_id, amount, currency, interval_days, interval_months, anchor, state, next_charge_at, try_at,
    attempts, last_error, missed_periods, last_transfer_id, created_at, clock_timestamp() AS now
FROM subscriptions
WHERE id = $1 AND state <> 'canceled' AND try_at <= clock_timestamp()
FOR NO KEY UPDATE SKIP LOCKED;

-- name: subscription_charged
-- Note that the transfer $4 has charged the subscription $1, after $3 missed periods; the next period begins at $2.
UPDATE subscriptions
SET
    state = 'active', next_charge_at = $2, try_at = $2, attempts = 0, last_error = NULL,
    missed_periods = missed_periods + $3, last_transfer_id = $4, updated_at = clock_timestamp()
WHERE id = $1;

-- name: subscription_failed
-- Note that $4 charges of the subscription $1 have failed for the period that began at $2, the last for the reason $5,
-- after $6 missed periods; the next attempt comes at $3.
UPDATE subscriptions
SET
    state = 'past_due', next_charge_at = $2, try_at = $3, attempts = $4, last_error = left($5, 100),
    missed_periods = missed_periods + $6, updated_at = clock_timestamp()
WHERE id = $1;
