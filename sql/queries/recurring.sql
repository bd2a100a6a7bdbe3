-- name: write_events
-- Store events in the transaction whose effects they tell of: ids, principals, types, bodies, objects.
INSERT INTO outbox_events (id, principal_id, event_type, body, object_id)
SELECT e.id, e.principal_id, e.event_type, e.body, e.object_id
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::bytea[], $5::text[])
    AS e (id, principal_id, event_type, body, object_id);

-- name: write_audit_events
-- Store audit records in the transaction that they are about: ids, types, actors, users, objects, data.
INSERT INTO audit_events (id, type, actor, user_id, object_id, data)
SELECT a.id, a.type, a.actor, a.user_id, a.object_id, a.data::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
    AS a (id, type, actor, user_id, object_id, data);

-- name: upsert_mandate
-- Store the mandate of payer $2 for issuer $3, with id $1 if there is none yet, and return it; a revoked one is active
-- again.
INSERT INTO mandates AS m (id, payer_id, issuer_id, autopay, max_amount)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (payer_id, issuer_id) DO UPDATE
    SET autopay = excluded.autopay, max_amount = excluded.max_amount, state = 'active', updated_at = clock_timestamp()
RETURNING m.id, m.payer_id, m.issuer_id, m.autopay, m.max_amount, m.state, m.created_at, m.updated_at;

-- name: mandates_of
-- The newest $2 mandates of the payer $1, with the phone of the issuer.
SELECT
    m.id, m.payer_id, m.issuer_id, issuer.phone AS issuer_phone, m.autopay, m.max_amount, m.state, m.created_at,
    m.updated_at
FROM mandates AS m
INNER JOIN users AS issuer ON m.issuer_id = issuer.id
WHERE m.payer_id = $1
ORDER BY m.created_at DESC, m.id DESC
LIMIT $2;

-- name: find_mandate
-- One row: whose the mandate $1 is.
SELECT payer_id, issuer_id FROM mandates WHERE id = $1;

-- name: revoke_mandate
-- Revoke the mandate $1; no row comes back when it is already.
UPDATE mandates SET state = 'revoked', updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active'
RETURNING id;

-- name: invoices_to_autopay
-- Up to $2 due invoices that a mandate covers, longest due first; those that failed count as due when they are tried
-- again. With a payer $1 only theirs, and they need not wait.
SELECT p.id, p.payer_id, p.payee_id, coalesce(f.attempts, 0) AS attempts
FROM mandates AS m
INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
LEFT JOIN autopay_failures AS f ON p.id = f.invoice_id
WHERE
    m.autopay AND m.state = 'active' AND (m.payer_id = $1 OR $1::uuid IS NULL)
    AND p.kind = 'invoice' AND p.state = 'open' AND p.due_at <= clock_timestamp()
    AND p.amount <= coalesce(m.max_amount, p.amount)
    AND ($1::uuid IS NOT NULL OR f.retry_at IS NULL OR f.retry_at <= clock_timestamp())
ORDER BY coalesce(f.retry_at, p.due_at), p.id
LIMIT $2;

-- name: lock_invoice_to_autopay
-- The invoice $1, locked after the mandate that covers it; no row when it is not due, not covered any more, or locked
-- by somebody who pays or ends it.
WITH mandate AS (
    SELECT m.payer_id, m.issuer_id, m.max_amount
    FROM mandates AS m
    INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
    WHERE p.id = $1 AND m.autopay AND m.state = 'active'
    FOR SHARE OF m
)

SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, FALSE AS expired
FROM payables AS p
INNER JOIN mandate ON p.payer_id = mandate.payer_id AND p.payee_id = mandate.issuer_id
WHERE
    p.id = $1 AND p.kind = 'invoice' AND p.state = 'open' AND p.due_at <= clock_timestamp()
    AND p.amount <= coalesce(mandate.max_amount, p.amount)
FOR NO KEY UPDATE OF p SKIP LOCKED;

-- name: note_autopay_failure
-- One more failure of the invoice $1, for the reason $2; it is tried again in $3.
INSERT INTO autopay_failures AS f (invoice_id, attempts, retry_at, last_error)
VALUES ($1, 1, clock_timestamp() + $3::interval, left($2, 100))
ON CONFLICT (invoice_id) DO UPDATE
    SET attempts = f.attempts + 1, retry_at = excluded.retry_at, last_error = excluded.last_error;

-- name: forget_autopay_failure
-- The invoice $1 was paid, or is to be tried at once.
DELETE FROM autopay_failures WHERE invoice_id = $1;

-- name: force_invoice_due
-- Make the open invoice $1 due since a minute.
UPDATE payables SET due_at = clock_timestamp() - interval '1 minute', updated_at = clock_timestamp()
WHERE id = $1 AND kind = 'invoice' AND state = 'open';

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

-- name: subscriptions_due
-- Up to $1 subscriptions that are to be charged, longest due first.
SELECT id, payer_id, merchant_id FROM subscriptions
WHERE state <> 'canceled' AND try_at <= clock_timestamp()
ORDER BY try_at, id
LIMIT $1;

-- name: lock_subscription_due
-- The subscription $1, locked, and the time; no row when it is not due any more, or locked by another charger.
SELECT
    id, payer_id, merchant_id, amount, currency, interval_days, state, next_charge_at, try_at, attempts, last_error,
    missed_periods, last_transfer_id, created_at, clock_timestamp() AS now
FROM subscriptions
WHERE id = $1 AND state <> 'canceled' AND try_at <= clock_timestamp()
FOR NO KEY UPDATE SKIP LOCKED;

-- name: subscription_charged
-- The subscription $1 was charged by the transfer $4, after $3 missed periods; the next period begins at $2.
UPDATE subscriptions
SET
    state = 'active', next_charge_at = $2, try_at = $2, attempts = 0, last_error = NULL,
    missed_periods = missed_periods + $3, last_transfer_id = $4, updated_at = clock_timestamp()
WHERE id = $1;

-- name: subscription_failed
-- The subscription $1 could not be charged for the period that began at $2, now $4 times, for the reason $5, after $6
-- missed periods; it is tried again at $3.
UPDATE subscriptions
SET
    state = 'past_due', next_charge_at = $2, try_at = $3, attempts = $4, last_error = left($5, 100),
    missed_periods = missed_periods + $6, updated_at = clock_timestamp()
WHERE id = $1;

-- name: cancel_subscription
-- End the subscription $1; no row comes back when it has ended already.
UPDATE subscriptions SET state = 'canceled', updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'canceled'
RETURNING id;

-- name: force_subscription_due
-- Let a period of the subscription $1 begin a minute ago.
UPDATE subscriptions
SET
    next_charge_at = clock_timestamp() - interval '1 minute', try_at = clock_timestamp() - interval '1 minute',
    attempts = 0, updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'canceled';
