-- name: import_payment
-- Store a payment: id, surface, caller, request id, fingerprint, amount, scale, currency, method, details, state,
-- routes, paid, created, updated, expires. No row comes back where its id or its key is known.
INSERT INTO payments (
    id, surface, caller, request_id, fingerprint, amount, scale, currency, method, details, state, routes, paid,
    revision, created_at, updated_at, expires_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12, $13, 1, $14, $15, $16)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: import_attempt
-- Store its attempt: id, payment, provider, the provider's id, names, state, address, word, received, whether it is
-- looked at, created, updated.
INSERT INTO payment_attempts (
    id, payment_id, number, provider, provider_id, names, state, url, word, received, next_look_at, created_at,
    updated_at
)
VALUES (
    $1, $2, 1, $3, $4, $5::text::jsonb, $6, $7, $8, $9, CASE WHEN $10::boolean THEN clock_timestamp() END, $11, $12
);

-- name: import_names
-- Let the provider $1 know the attempt $3 by the names $2.
INSERT INTO payment_names (provider, name, attempt_id)
SELECT
    $1 AS provider, n.name, $3 AS attempt_id
FROM unnest($2::text[]) AS n (name)
ON CONFLICT (provider, name) DO NOTHING;

-- name: import_step
-- Begin the timeline of a payment: payment, attempt, actor, state, data.
INSERT INTO payment_timeline (payment_id, no, attempt_id, kind, actor, state, data)
VALUES ($1, 1, $2, 'imported', $3, $4, $5::text::jsonb);
