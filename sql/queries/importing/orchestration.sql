-- name: old_payments
-- From the source: all payments. `metadata_json` is JSON.
SELECT
    p.id, p.request_id, p.caller_service, p.resource_type, p.resource_id, p.customer_ref, p.amount_cents, p.currency,
    p.status, p.payment_method, p.payment_type, p.provider, p.recurring_interval, p.recurring_interval_count,
    p.provider_payment_id, p.provider_subscription_id, p.checkout_url, p.provider_callback_hash,
    p.provider_callback_url, p.status_callback_url, p.metadata_json, p.callback_delivery_status, p.created_at,
    p.updated_at
FROM payments AS p
ORDER BY p.id;

-- name: import_orchestration
-- Store the contract's side of a payment under its number: number, payment, owner and caller, request id, resource type
-- and id, customer, type, interval, count, hash, callback, status callback. No row comes back where it is known.
INSERT INTO orchestration_payments (
    id, payment_id, owner, caller_service, request_id, resource_type, resource_id, customer_ref, payment_type,
    recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url
)
VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: known_orchestration
-- The payment with the number $1: payment_id, caller_service, request_id, callback_hash.
SELECT
    o.payment_id, o.caller_service, o.request_id, o.callback_hash
FROM orchestration_payments AS o
WHERE o.id = $1;

-- name: after_payments
-- Let new payments get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('orchestration_payments', 'id'),
    greatest(
        (SELECT max(o.id) FROM orchestration_payments AS o),
        (SELECT s.last_value FROM orchestration_payments_id_seq AS s), 1
    )
);
