-- name: list_deliveries
-- Up to $11 deliveries after the first $12, with ids below $1 and not below $2, newest first: of principal $3,
-- endpoint $4, event $5, in one of the states $6, of one of the types $7, given up or received at or after $8 (null: of
-- any), made from $13 and before $14 (null: ever). $9 leaves only those that can be sent again, $10 adds those of
-- endpoints that were deleted. The index of each endpoint serves its newest, so that no other endpoint's deliveries are
-- read.
SELECT
    found.id, found.event_id, found.endpoint_id, found.batch_id, found.event_type, found.object_id, found.state,
    found.attempts, found.due_at, found.last_status, found.last_error, found.created_at, found.finished_at
FROM webhook_endpoints AS endpoint
CROSS JOIN
    LATERAL (
        SELECT
            delivery.id, delivery.event_id, delivery.endpoint_id, delivery.batch_id, told.event_type, told.object_id,
            delivery.state, delivery.attempts, delivery.due_at, delivery.last_status, delivery.last_error,
            delivery.created_at, delivery.finished_at
        FROM webhook_deliveries AS delivery
        INNER JOIN outbox_events AS told ON delivery.event_id = told.id
        WHERE
            delivery.endpoint_id = endpoint.id
            AND delivery.id < $1
            AND delivery.id >= $2
            AND ($5::uuid IS NULL OR delivery.event_id = $5)
            AND ($6::text[] IS NULL OR delivery.state = any($6))
            AND ($7::text[] IS NULL OR told.event_type = any($7))
            AND ($8::timestamptz IS NULL OR delivery.finished_at >= $8)
            AND ($13::timestamptz IS NULL OR delivery.created_at >= $13)
            AND ($14::timestamptz IS NULL OR delivery.created_at < $14)
        ORDER BY delivery.id DESC
        LIMIT $11::bigint + $12::bigint
    ) AS found
WHERE
    ($3::integer IS NULL OR endpoint.principal_id = $3)
    AND ($4::uuid IS NULL OR endpoint.id = $4)
    AND (NOT $9::boolean OR endpoint.disabled_at IS NULL)
    AND ($10::boolean OR endpoint.deleted_at IS NULL)
ORDER BY found.id DESC
LIMIT $11 OFFSET $12;

-- name: find_delivery
-- Delivery $2 of principal $1 (null: of any), or no row; with url, whether its endpoint is deleted or disabled, and
-- whether it is a callback that was superseded.
SELECT
    delivery.id, delivery.event_id, delivery.endpoint_id, delivery.batch_id, told.event_type, told.object_id,
    delivery.state, delivery.attempts, delivery.due_at, delivery.last_status, delivery.last_error,
    delivery.created_at, delivery.finished_at, endpoint.url,
    endpoint.deleted_at IS NOT NULL AS deleted, endpoint.disabled_at IS NOT NULL AS disabled,
    coalesce(callback.superseded, FALSE) AS superseded
FROM webhook_deliveries AS delivery
INNER JOIN outbox_events AS told ON delivery.event_id = told.id
INNER JOIN webhook_endpoints AS endpoint ON delivery.endpoint_id = endpoint.id
LEFT JOIN callbacks AS callback ON delivery.id = callback.delivery_id
WHERE delivery.id = $2 AND ($1::integer IS NULL OR endpoint.principal_id = $1);

-- name: delivery_attempts
-- The last $2 attempts at delivery $1, or at the batch that it is in, that are kept, newest first. No attempt is older
-- than its delivery, but for the clock of the sender: partitions of before are not read.
SELECT attempt.at, attempt.status, attempt.latency_ms, attempt.excerpt, attempt.error
FROM webhook_deliveries AS asked
INNER JOIN webhook_deliveries AS sent ON coalesce(asked.batch_id, asked.id) = sent.id
INNER JOIN webhook_attempts AS attempt ON sent.id = attempt.delivery_id
WHERE asked.id = $1 AND attempt.at >= sent.created_at - interval '1 hour'
ORDER BY attempt.at DESC
LIMIT $2;

-- name: resend_deliveries
-- Make deliveries $1 due again as if they were new, but for those that are being sent just now or whose endpoint
-- is gone or off, and callbacks that were superseded; for a member of a batch, the delivery that carries the batch. The
-- query answers id, endpoint_id, ordered_object, batch_id. Deliveries are due in the order of their events. One that
-- goes in the order of its object waits to be released, unless it is in turn.
WITH wanted AS (
    SELECT DISTINCT coalesce(batch_id, id) AS id FROM webhook_deliveries
    WHERE id = any($1::uuid[])
),

chosen AS (
    SELECT delivery.id, delivery.event_id
    FROM webhook_deliveries AS delivery
    INNER JOIN wanted ON delivery.id = wanted.id
    INNER JOIN webhook_endpoints AS endpoint ON delivery.endpoint_id = endpoint.id
    WHERE
        delivery.state <> 'leased' AND endpoint.deleted_at IS NULL AND endpoint.disabled_at IS NULL
        AND NOT EXISTS (
            SELECT 1 FROM callbacks AS callback
            WHERE callback.delivery_id = delivery.id AND callback.superseded
        )
    ORDER BY delivery.id
    FOR UPDATE OF delivery
),

placed AS (
    SELECT id, row_number() OVER (ORDER BY event_id) AS place FROM chosen
)

UPDATE webhook_deliveries AS delivery
SET
    state = CASE
        WHEN delivery.ordered_object IS NULL OR delivery.state = 'pending' THEN 'pending' ELSE 'waiting'
    END,
    attempts = 0,
    -- The times are just now, since claims look behind what they took before, and a microsecond apart.
    due_at = now() - interval '1 millisecond' + placed.place * interval '1 microsecond',
    last_status = NULL, last_error = NULL, finished_at = NULL
FROM placed
WHERE delivery.id = placed.id
RETURNING delivery.id, delivery.endpoint_id, delivery.ordered_object, delivery.batch_id;
