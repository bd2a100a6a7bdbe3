-- name: write_outbox_event
-- Store an event in the transaction whose effect it tells of. No row comes back.
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body) VALUES ($1, $2, $3, $4, $5);

-- name: take_events_to_fan_out
-- Up to $1 events that have no deliveries yet, oldest first, locked: id, principal_id, event_type,
-- created_at.
SELECT
    id,
    principal_id,
    event_type,
    created_at
FROM outbox_events
WHERE fanned_out_at IS NULL
ORDER BY id
LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: endpoints_for_events
-- One row for each of the given events and each living endpoint of its principal that wants its type and is
-- not younger than it: event_id, endpoint_id. In the order of the events.
SELECT
    given.id AS event_id,
    endpoint.id AS endpoint_id
FROM
    unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[])
        AS given (id, principal_id, event_type, created_at)
INNER JOIN webhook_endpoints AS endpoint
    ON
        given.principal_id = endpoint.principal_id
        AND endpoint.deleted_at IS NULL
        AND given.created_at >= endpoint.created_at
        AND (endpoint.event_types = '{}' OR given.event_type = any(endpoint.event_types))
ORDER BY given.id, endpoint.id;

-- name: create_deliveries
-- One delivery for each event and endpoint given. No row comes back.
INSERT INTO webhook_deliveries (id, event_id, endpoint_id)
SELECT
    given.id,
    given.event_id,
    given.endpoint_id
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS given (id, event_id, endpoint_id)
ON CONFLICT (event_id, endpoint_id) DO NOTHING;

-- name: mark_fanned_out
-- The deliveries of these events exist now.
UPDATE outbox_events SET fanned_out_at = clock_timestamp()
WHERE id = any($1::uuid[]);

-- name: claim_deliveries
-- Up to $1 due deliveries, at most $2 for one endpoint and none for the endpoints in $3, leased to worker $4
-- under token $5 for $6 seconds. The endpoints are visited in the order of their ids after $7, one index seek
-- each, so that every receiver gets its share whatever the backlog of the others. url and secrets are null
-- when the endpoint is gone.
WITH RECURSIVE waiting AS (
    (
        SELECT endpoint_id FROM webhook_deliveries
        WHERE state = 'pending' AND endpoint_id > $7
        ORDER BY endpoint_id
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT delivery.endpoint_id FROM webhook_deliveries AS delivery
        WHERE delivery.state = 'pending' AND delivery.endpoint_id > waiting.endpoint_id
        ORDER BY delivery.endpoint_id
        LIMIT 1
    )
    FROM waiting
    WHERE waiting.endpoint_id IS NOT NULL
),

due AS (
    SELECT pick.id
    FROM waiting
    CROSS JOIN
        LATERAL (
            SELECT delivery.id FROM webhook_deliveries AS delivery
            WHERE
                delivery.endpoint_id = waiting.endpoint_id
                AND delivery.state = 'pending'
                AND delivery.due_at <= now()
            ORDER BY delivery.due_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ) AS pick
    WHERE waiting.endpoint_id <> all($3::uuid[])
    -- In the order in which they are found: sorting would visit every endpoint before the first is taken.
    LIMIT $1 -- noqa: AM09
),

claimed AS (
    UPDATE webhook_deliveries AS delivery
    SET
        state = 'leased',
        attempts = delivery.attempts + 1,
        lease_worker = $4,
        lease_token = $5,
        lease_until = clock_timestamp() + make_interval(secs => $6)
    FROM due
    WHERE delivery.id = due.id
    RETURNING delivery.id, delivery.event_id, delivery.endpoint_id, delivery.attempts
)

SELECT
    claimed.id,
    claimed.event_id,
    claimed.endpoint_id,
    claimed.attempts,
    told.event_type,
    told.body,
    endpoint.url,
    endpoint.secrets
FROM claimed
INNER JOIN outbox_events AS told ON claimed.event_id = told.id
LEFT JOIN webhook_endpoints AS endpoint ON claimed.endpoint_id = endpoint.id AND endpoint.deleted_at IS NULL
ORDER BY claimed.endpoint_id, claimed.event_id;

-- name: record_deliveries
-- Write down what came of deliveries: state `delivered`, `failed`, or `pending` again in retry_seconds. The
-- ids of those whose lease still held; the others were taken over and are sent again with the same id.
UPDATE webhook_deliveries AS delivery
SET
    state = result.state,
    due_at = CASE
        WHEN result.state = 'pending' THEN clock_timestamp() + make_interval(secs => result.retry_seconds)
        ELSE delivery.due_at
    END,
    finished_at = CASE WHEN result.state <> 'pending' THEN clock_timestamp() END,
    last_status = result.status,
    last_error = result.error,
    lease_worker = NULL,
    lease_token = NULL,
    lease_until = NULL
FROM
    unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::double precision[])
        AS result (id, token, state, status, error, retry_seconds)
WHERE delivery.id = result.id AND delivery.state = 'leased' AND delivery.lease_token = result.token
RETURNING delivery.id;

-- name: take_over_deliveries
-- Free up to $3 deliveries whose worker was not seen for $1 seconds or whose lease ran out; those that have
-- used up $2 attempts have failed. One row each: id, state.
WITH lost AS (
    SELECT delivery.id FROM webhook_deliveries AS delivery
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
)

UPDATE webhook_deliveries AS delivery
SET
    state = CASE WHEN delivery.attempts >= $2 THEN 'failed' ELSE 'pending' END,
    finished_at = CASE WHEN delivery.attempts >= $2 THEN clock_timestamp() END,
    due_at = clock_timestamp(),
    last_error = 'The worker that was sending this is gone; the outcome is not known.',
    lease_worker = NULL,
    lease_token = NULL,
    lease_until = NULL
FROM lost
WHERE delivery.id = lost.id
RETURNING delivery.id, delivery.state;

-- name: release_deliveries
-- Give back what worker $1 holds and has not sent, without counting the attempt.
UPDATE webhook_deliveries
SET
    state = 'pending',
    attempts = attempts - 1,
    due_at = clock_timestamp(),
    lease_worker = NULL,
    lease_token = NULL,
    lease_until = NULL
WHERE lease_worker = $1 AND state = 'leased';

-- name: outbox_backlog
-- How many events wait for their fan-out and how many deliveries are due (each counted up to 10,000), and the
-- age of the oldest event in seconds.
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM outbox_events
            WHERE fanned_out_at IS NULL
            ORDER BY id
            LIMIT 10000
        ) AS waiting
    ) AS events,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM webhook_deliveries
            WHERE state = 'pending' AND due_at <= now()
            ORDER BY endpoint_id, due_at
            LIMIT 10000
        ) AS due
    ) AS deliveries,
    (
        SELECT coalesce(extract(EPOCH FROM now() - created_at), 0)::double precision
        FROM outbox_events
        WHERE fanned_out_at IS NULL
        ORDER BY id
        LIMIT 1
    ) AS oldest_seconds;

-- name: create_webhook_endpoint
-- The endpoint as stored: id, url, event_types, created_at. Nothing when the principal has $6 living ones
-- already.
INSERT INTO webhook_endpoints (id, principal_id, url, event_types, secrets)
SELECT
    $1 AS id,
    $2 AS principal_id,
    $3 AS url,
    $4 AS event_types,
    $5 AS secrets
WHERE (
    SELECT count(*) FROM webhook_endpoints
    WHERE principal_id = $2 AND deleted_at IS NULL
) < $6
RETURNING id, url, event_types, created_at;

-- name: list_webhook_endpoints
-- Up to $3 living endpoints of principal $1 with an id above $2, in the order of their ids.
SELECT
    id,
    url,
    event_types,
    created_at
FROM webhook_endpoints
WHERE principal_id = $1 AND id > $2 AND deleted_at IS NULL
ORDER BY id
LIMIT $3;

-- name: find_webhook_endpoint
-- The living endpoint $2 of principal $1, or nothing.
SELECT
    id,
    url,
    event_types,
    created_at
FROM webhook_endpoints
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: delete_webhook_endpoint
-- The id when there was a living endpoint $2 of principal $1. Its deliveries fail when their turn comes.
UPDATE webhook_endpoints SET deleted_at = clock_timestamp()
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
RETURNING id;
