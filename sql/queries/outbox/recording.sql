-- name: record_deliveries
-- Write down the results of deliveries: state `delivered`, `failed`, or `pending` again in retry_seconds; and the
-- attempt, if there was one (sent_at). The query answers the ids whose lease still held; the others were taken over
-- and are sent again with the same id.
WITH result AS (
    SELECT * FROM
        unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::double precision[], $6::timestamptz[], $7::integer[],
            $8::integer[], $9::text[], $10::text[]
        ) AS given (id, token, state, last_error, retry_seconds, sent_at, latency_ms, status, excerpt, error)
),

kept AS (
    INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt, error)
    SELECT result.id, result.sent_at, result.status, result.latency_ms, result.excerpt, result.error
    FROM result
    WHERE result.sent_at IS NOT NULL
    ON CONFLICT (delivery_id, at) DO NOTHING
)

UPDATE webhook_deliveries AS delivery
SET
    state = result.state,
    attempts = delivery.attempts - CASE WHEN result.sent_at IS NULL THEN 1 ELSE 0 END,
    due_at = CASE
        WHEN result.state = 'pending' THEN clock_timestamp() + make_interval(secs => result.retry_seconds)
        ELSE delivery.due_at
    END,
    finished_at = CASE WHEN result.state <> 'pending' THEN clock_timestamp() END,
    last_status = result.status, last_error = result.last_error,
    lease_worker = NULL, lease_token = NULL, lease_until = NULL
FROM result
WHERE delivery.id = any($1::uuid[]) AND delivery.id = result.id AND delivery.lease_token = result.token
RETURNING delivery.id;

-- name: end_superseded
-- End those of the callbacks $1 that would be tried again although a later one was written meanwhile: the ids.
UPDATE webhook_deliveries AS delivery
SET state = 'failed', finished_at = clock_timestamp()
FROM callbacks AS callback
WHERE
    callback.delivery_id = any((SELECT $1::uuid[])::uuid[]) AND callback.superseded
    AND delivery.id = any((SELECT $1::uuid[])::uuid[])
    -- Written so that the index of all that are pending does not serve it: these few are found by their ids.
    AND delivery.id = callback.delivery_id AND coalesce(delivery.state, '') = 'pending'
RETURNING delivery.id;

-- name: take_over_deliveries
-- Free up to $3 deliveries whose worker was not seen for $1 seconds or whose lease ran out; those with $2 attempts
-- or more have failed, or as many as $5 says for callbacks of the surface in $4. One row each: id, state, endpoint_id,
-- ordered_object, batch_id.
WITH lost AS (
    SELECT
        delivery.id,
        coalesce((
            SELECT kind.attempts FROM webhook_endpoints AS endpoint
            INNER JOIN unnest($4::text[], $5::integer[]) AS kind (surface, attempts) ON endpoint.surface = kind.surface
            WHERE endpoint.id = delivery.endpoint_id
        ), $2) AS most
    FROM webhook_deliveries AS delivery
    LEFT JOIN workers AS worker ON delivery.lease_worker = worker.id
    WHERE
        delivery.state = 'leased'
        AND (
            worker.id IS NULL
            OR worker.seen_at < now() - make_interval(secs => $1)
            OR delivery.lease_until < now()
        )
    ORDER BY delivery.id
    LIMIT $3
    FOR UPDATE OF delivery SKIP LOCKED
),

freed AS (
    UPDATE webhook_deliveries AS delivery
    SET
        state = CASE WHEN delivery.attempts >= lost.most THEN 'failed' ELSE 'pending' END,
        finished_at = CASE WHEN delivery.attempts >= lost.most THEN clock_timestamp() END,
        due_at = clock_timestamp(),
        last_error = 'The worker that was sending this is gone; the outcome is not known.',
        lease_worker = NULL, lease_token = NULL, lease_until = NULL
    FROM lost
    WHERE delivery.id = lost.id
    RETURNING delivery.id, delivery.state, delivery.endpoint_id, delivery.ordered_object, delivery.batch_id
),

kept AS (
    INSERT INTO webhook_attempts (delivery_id, at, latency_ms, excerpt, error)
    SELECT
        freed.id, clock_timestamp() AS at, 0 AS latency_ms, '' AS excerpt,
        'The worker that was sending this is gone; the outcome is not known.' AS error
    FROM freed
)

SELECT freed.id, freed.state, freed.endpoint_id, freed.ordered_object, freed.batch_id FROM freed;
