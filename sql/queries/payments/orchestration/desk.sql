-- name: store_orchestration
-- Store what the contract has beside a payment. No row comes back.
INSERT INTO orchestration_payments (
    payment_id, owner, caller_service, request_id, asked, resource_type, resource_id, customer_ref, payment_type,
    recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, nullif($8, ''), $9, nullif($10, ''), nullif($11::integer, 0), $12, $13, $14
);

-- name: orchestration_by_key
-- The payment of the service $1 under the request id $2.
SELECT
    id, payment_id, owner, asked, request_id, caller_service, resource_type, resource_id, customer_ref, payment_type,
    provider, recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url, amount,
    currency, method, state, paid, refunded, disputed, metadata::text AS metadata, created_at, updated_at, attempt_id,
    provider_id, subscription_id, url, error
FROM orchestration_shown
WHERE caller_service = $1 AND request_id = $2;

-- name: orchestration_by_id
-- The payment of the number $1.
SELECT
    id, payment_id, owner, asked, request_id, caller_service, resource_type, resource_id, customer_ref, payment_type,
    provider, recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url, amount,
    currency, method, state, paid, refunded, disputed, metadata::text AS metadata, created_at, updated_at, attempt_id,
    provider_id, subscription_id, url, error
FROM orchestration_shown
WHERE id = $1;

-- name: orchestration_by_payment
-- The payment that the engine knows as $1.
SELECT
    id, payment_id, owner, asked, request_id, caller_service, resource_type, resource_id, customer_ref, payment_type,
    provider, recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url, amount,
    currency, method, state, paid, refunded, disputed, metadata::text AS metadata, created_at, updated_at, attempt_id,
    provider_id, subscription_id, url, error
FROM orchestration_shown
WHERE payment_id = $1;

-- name: orchestration_by_hash
-- The payment to whose address under $2 the provider $1 sends its events.
SELECT
    id, payment_id, owner, asked, request_id, caller_service, resource_type, resource_id, customer_ref, payment_type,
    provider, recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url, amount,
    currency, method, state, paid, refunded, disputed, metadata::text AS metadata, created_at, updated_at, attempt_id,
    provider_id, subscription_id, url, error
FROM orchestration_shown
WHERE provider = $1 AND callback_hash = $2;

-- name: orchestration_listed
-- Payments, the newest first: of the owner $1, the service $2, the request id $3, the resource $4 and $5, in one of the
-- states $6, at most $7 after the first $8. Null leaves nothing out.
SELECT
    id, payment_id, owner, asked, request_id, caller_service, resource_type, resource_id, customer_ref, payment_type,
    provider, recurring_interval, recurring_interval_count, callback_hash, callback_url, status_callback_url, amount,
    currency, method, state, paid, refunded, disputed, metadata::text AS metadata, created_at, updated_at, attempt_id,
    provider_id, subscription_id, url, error
FROM orchestration_shown
WHERE
    ($1::text IS NULL OR owner = $1) AND ($2::text IS NULL OR caller_service = $2)
    AND ($3::text IS NULL OR request_id = $3) AND ($4::text IS NULL OR resource_type = $4)
    AND ($5::text IS NULL OR resource_id = $5) AND ($6::text[] IS NULL OR state = any($6))
ORDER BY id DESC
LIMIT $7 OFFSET $8;
