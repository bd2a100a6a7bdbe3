-- name: store_payment
-- Store a payment, and return its id; no row where its surface, caller and request id have one.
INSERT INTO payments (
    id, surface, caller, request_id, fingerprint, principal_id, amount, scale, currency, method, account, details,
    routes, expires_at, revision
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13, $14, 1)
ON CONFLICT (surface, caller, request_id) DO NOTHING
RETURNING id;

-- name: store_attempt
-- Store the first attempt $1 at the payment $2: provider, reasons, and the seconds until others may look (null:
-- never); and the first line of the timeline.
WITH stored AS (
    INSERT INTO payment_attempts (id, payment_id, number, provider, route, next_look_at)
    VALUES ($1, $2, 1, $3, $4::text::jsonb, clock_timestamp() + make_interval(secs => $5::double precision))
    RETURNING id, payment_id, provider, route
)

INSERT INTO payment_timeline (payment_id, no, attempt_id, kind, actor, state, data)
SELECT
    payment_id, 1 AS no, id AS attempt_id, 'created' AS kind, 'caller' AS actor, 'created' AS state,
    jsonb_build_object('provider', provider, 'route', route) AS data
FROM stored;

-- name: claim_attempt
-- Take the attempt $1 for $2 seconds if it is due.
UPDATE payment_attempts SET next_look_at = clock_timestamp() + make_interval(secs => $2::double precision)
WHERE id = $1 AND next_look_at <= clock_timestamp();
