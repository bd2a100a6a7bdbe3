-- name: callback_endpoint
-- The endpoint of the callbacks of surface $1 to owner $2 at origin $3, or no row: id, secrets.
SELECT id, secrets FROM webhook_endpoints
WHERE surface = $1 AND owner = $2 AND url = $3;

-- name: create_callback_endpoint
-- Store endpoint $1 of no principal ($2), for surface $3, owner $4 and origin $5, with secret $6. No row comes back.
INSERT INTO webhook_endpoints (id, principal_id, surface, owner, url, event_types, secrets)
VALUES ($1, $2, $3, $4, $5, '{callback}', ARRAY[$6::text])
ON CONFLICT (surface, owner, url) WHERE surface IS NOT NULL DO NOTHING;

-- name: rotate_callback_secret
-- Secret $2 is the only one of endpoint $1. No row comes back.
UPDATE webhook_endpoints SET secrets = ARRAY[$2::text], revision = revision + 1
WHERE id = $1 AND surface IS NOT NULL;

-- name: list_callback_endpoints
-- Up to $2 endpoints of callbacks with ids above $1, in the order of their ids: id, surface, owner, url, created_at.
SELECT id, surface, owner, url, created_at FROM webhook_endpoints
WHERE surface IS NOT NULL AND id > $1
ORDER BY id
LIMIT $2;

-- name: callback_owner_known
-- Whether the owner $2 of surface $1 exists: one value.
SELECT
    EXISTS (SELECT 1 FROM webhook_endpoints AS e WHERE e.surface = $1 AND e.owner = $2)
    OR CASE $1
        WHEN 'orders'
            THEN EXISTS (SELECT 1 FROM order_merchants AS m WHERE m.id::text = $2)
        ELSE EXISTS (SELECT 1 FROM internal_callers AS c WHERE c.name = $2)
    END;

-- name: lock_callbacks
-- Lock the deliveries of callbacks of surface $1 and object $2 that are not done: id, endpoint_id, state.
SELECT delivery.id, delivery.endpoint_id, delivery.state FROM webhook_deliveries AS delivery
WHERE
    delivery.id = any(
        array(
            SELECT callback.delivery_id FROM callbacks AS callback
            WHERE callback.surface = $1 AND callback.object_id = $2
        )
    )
    AND delivery.state IN ('pending', 'leased', 'waiting')
ORDER BY delivery.id
FOR UPDATE;

-- name: supersede_callbacks
-- The callbacks of surface $1 and object $2 are superseded by a new one. No row comes back.
UPDATE callbacks SET superseded = TRUE
WHERE surface = $1 AND object_id = $2 AND NOT superseded;

-- name: end_callbacks
-- End the locked deliveries $1, which were superseded before they were under way. No row comes back.
UPDATE webhook_deliveries SET state = 'failed', last_error = $2, finished_at = clock_timestamp()
WHERE id = any((SELECT $1::uuid[])::uuid[]);

-- name: write_callback
-- Store event $1 with delivery $2 to endpoint $3, for surface $4 and object $5: principal $6, type $7, body $8, request
-- $9. The delivery is in state $10, with error $11 if it has failed already. No row comes back.
WITH told AS (
    INSERT INTO outbox_events (id, principal_id, event_type, object_id, body, request, fanned_out_at)
    VALUES ($1, $6, $7, $5, $8, $9::text::jsonb, clock_timestamp())
    RETURNING id
),

made AS (
    INSERT INTO webhook_deliveries (id, event_id, endpoint_id, ordered_object, state, last_error, finished_at)
    SELECT
        $2 AS id, told.id AS event_id, $3 AS endpoint_id, $5 AS ordered_object, $10 AS state, $11 AS last_error,
        CASE WHEN $11::text IS NOT NULL THEN clock_timestamp() END AS finished_at
    FROM told
    RETURNING id
)

INSERT INTO callbacks (delivery_id, surface, object_id)
SELECT
    made.id AS delivery_id, $4 AS surface, $5 AS object_id
FROM made;

-- name: callback_states
-- The latest callback of surface $1 for each of the objects $2 that has one: object_id, state, attempts, last_status,
-- last_error, next_at, finished_at.
WITH wanted AS (
    SELECT given.object_id FROM unnest((SELECT $2::text[])) AS given (object_id)
)

SELECT
    latest.object_id, coalesce(delivery.state, latest.state) AS state,
    coalesce(delivery.attempts, latest.attempts, 0) AS attempts,
    coalesce(delivery.last_status, latest.last_status) AS last_status,
    coalesce(delivery.last_error, latest.last_error) AS last_error,
    CASE WHEN delivery.state = 'pending' THEN delivery.due_at END AS next_at,
    coalesce(delivery.finished_at, latest.finished_at) AS finished_at
FROM wanted
CROSS JOIN
    LATERAL (
        SELECT
            callback.object_id, callback.delivery_id, callback.state, callback.attempts, callback.last_status,
            callback.last_error, callback.finished_at
        FROM callbacks AS callback
        WHERE callback.surface = $1 AND callback.object_id = wanted.object_id AND NOT callback.superseded
        ORDER BY callback.delivery_id DESC
        LIMIT 1
    ) AS latest
LEFT JOIN webhook_deliveries AS delivery ON latest.delivery_id = delivery.id;

-- name: callback_attempts
-- Up to $3 of the attempts that are kept of callbacks of surface $1 and object $2, the oldest first: delivery_id,
-- number, at, status, error, excerpt, body, state, attempts, next_at. The last three are the delivery's now.
SELECT
    callback.delivery_id, attempt.at, attempt.status, attempt.error, attempt.excerpt, told.body,
    row_number() OVER (PARTITION BY callback.delivery_id ORDER BY attempt.at) AS number,
    delivery.state, delivery.attempts, CASE WHEN delivery.state = 'pending' THEN delivery.due_at END AS next_at
FROM callbacks AS callback
INNER JOIN webhook_attempts AS attempt ON callback.delivery_id = attempt.delivery_id
INNER JOIN webhook_deliveries AS delivery ON callback.delivery_id = delivery.id
INNER JOIN outbox_events AS told ON delivery.event_id = told.id
WHERE
    callback.surface = $1 AND callback.object_id = $2
    -- The time names the partitions; the hour is for the clock of the sender.
    AND attempt.at >= callback.created_at - interval '1 hour'
ORDER BY callback.delivery_id, attempt.at
LIMIT $3;
