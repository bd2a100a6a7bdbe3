-- name: write_outbox_event
-- Store an event in the transaction whose effect it tells of. No row comes back.
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body) VALUES ($1, $2, $3, $4, $5);

-- name: take_events_to_fan_out
-- Up to $1 events that have no deliveries yet, oldest first, locked: id, principal_id, event_type, object_id,
-- created_at.
SELECT
    id,
    principal_id,
    event_type,
    object_id,
    created_at
FROM outbox_events
WHERE fanned_out_at IS NULL
ORDER BY id
LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: endpoints_for_events
-- One row for each of the given events and each living endpoint of its principal that wants its type and is
-- not younger than it: event_id, endpoint_id, disabled, and ordered_object for an endpoint that wants order. In
-- the order of the events.
SELECT
    given.id AS event_id,
    endpoint.id AS endpoint_id,
    endpoint.disabled_at IS NOT NULL AS disabled,
    CASE WHEN endpoint.ordered THEN given.object_id END AS ordered_object
FROM
    unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::timestamptz[])
        AS given (id, principal_id, event_type, object_id, created_at)
INNER JOIN webhook_endpoints AS endpoint
    ON
        given.principal_id = endpoint.principal_id
        AND endpoint.deleted_at IS NULL
        AND given.created_at >= endpoint.created_at
        AND (
            endpoint.event_types = '{}'
            OR given.event_type = any(endpoint.event_types)
            OR EXISTS (
                SELECT 1 FROM unnest(endpoint.event_types) AS wanted (pattern)
                WHERE
                    right(wanted.pattern, 1) = '*'
                    AND starts_with(given.event_type, left(wanted.pattern, -1))
            )
        )
ORDER BY given.id, endpoint.id;

-- name: create_deliveries
-- One delivery for each event and endpoint given. Those to an endpoint that is switched off are kept as failed,
-- from where they can be sent later; those that go in the order of their object wait to be released. No row comes
-- back.
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, ordered_object, state, last_error, finished_at)
SELECT
    given.id,
    given.event_id,
    given.endpoint_id,
    given.ordered_object,
    CASE
        WHEN given.disabled THEN 'failed'
        WHEN given.ordered_object IS NULL THEN 'pending'
        ELSE 'waiting'
    END AS state,
    CASE WHEN given.disabled THEN 'endpoint_disabled' END AS last_error,
    CASE WHEN given.disabled THEN clock_timestamp() END AS finished_at
FROM
    unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[], $5::text[])
        AS given (id, event_id, endpoint_id, disabled, ordered_object)
ON CONFLICT (event_id, endpoint_id) DO NOTHING;

-- name: mark_fanned_out
-- The deliveries of events $1, of principals $2, exist now; and each gets the next position of its principal,
-- whose row stays locked until the commit. In the order of the principals, so that two of these never wait for
-- each other in a circle.
WITH given AS (
    SELECT
        event.id,
        event.principal_id,
        row_number() OVER (PARTITION BY event.principal_id ORDER BY event.id) AS place,
        count(*) OVER (PARTITION BY event.principal_id) AS events
    FROM unnest($1::uuid[], $2::integer[]) AS event (id, principal_id)
),

drawn AS (
    INSERT INTO outbox_positions AS known (principal_id, last_position)
    SELECT
        given.principal_id,
        count(*) AS last_position
    FROM given
    GROUP BY given.principal_id
    ORDER BY given.principal_id
    ON CONFLICT (principal_id) DO UPDATE SET last_position = known.last_position + excluded.last_position
    RETURNING known.principal_id, known.last_position
)

UPDATE outbox_events AS told
SET
    fanned_out_at = clock_timestamp(),
    position = drawn.last_position - given.events + given.place
FROM given
INNER JOIN drawn ON given.principal_id = drawn.principal_id
WHERE told.id = given.id;

-- name: read_events
-- Up to $5 events of principal $1 with positions above $2 up to $3, of a type that $4 wants (empty: all), in
-- the order of their positions: id, position, event_type, object_id, body, created_at.
SELECT
    told.id,
    told.position,
    told.event_type,
    told.object_id,
    told.body,
    told.created_at
FROM outbox_events AS told
WHERE
    told.principal_id = $1
    AND told.position > $2
    AND told.position <= $3
    AND (
        $4::text[] = '{}'
        OR told.event_type = any($4::text[])
        OR EXISTS (
            SELECT 1 FROM unnest($4::text[]) AS wanted (pattern)
            WHERE
                right(wanted.pattern, 1) = '*'
                AND starts_with(told.event_type, left(wanted.pattern, -1))
        )
    )
ORDER BY told.position
LIMIT $5;

-- name: events_head
-- The position of the last event of principal $1; no row when it has none.
SELECT last_position FROM outbox_positions
WHERE principal_id = $1;

-- name: endpoints_due
-- Up to $2 endpoints with ids above $1 that have something due, and since when: endpoint_id, since. One index
-- seek for each endpoint, whatever its backlog; but each walks over the dead entries of what was taken.
WITH RECURSIVE waiting AS (
    (
        SELECT
            endpoint_id,
            due_at
        FROM webhook_deliveries
        WHERE state = 'pending' AND endpoint_id > $1
        ORDER BY endpoint_id, due_at
        LIMIT 1
    )
    UNION ALL
    SELECT
        after.endpoint_id,
        after.due_at
    FROM waiting
    CROSS JOIN
        LATERAL (
            SELECT
                delivery.endpoint_id,
                delivery.due_at
            FROM webhook_deliveries AS delivery
            WHERE delivery.state = 'pending' AND delivery.endpoint_id > waiting.endpoint_id
            ORDER BY delivery.endpoint_id, delivery.due_at
            LIMIT 1
        ) AS after
)

SELECT
    endpoint_id,
    due_at AS since
FROM waiting
WHERE due_at <= now()
-- In the order in which they are found, which is that of their ids: sorting would visit every endpoint first.
LIMIT $2; -- noqa: AM09

-- name: endpoints_due_lately
-- Up to $2 endpoints to which something came due within the last $1 seconds, and since when: endpoint_id, since.
-- By an index of its own, which has the times in UTC.
SELECT
    endpoint_id,
    min(due_at) AS since
FROM webhook_deliveries
WHERE
    state = 'pending'
    AND due_at AT TIME ZONE 'UTC' >= (now() - make_interval(secs => $1)) AT TIME ZONE 'UTC'
    AND due_at AT TIME ZONE 'UTC' <= now() AT TIME ZONE 'UTC'
GROUP BY endpoint_id
ORDER BY since
LIMIT $2;

-- name: claim_deliveries
-- Due deliveries, leased to worker $4 under token $5 for $6 seconds: of each endpoint in $1 up to as many as $2
-- says, from the time in $3 on. One index seek for each endpoint, so that every receiver gets its share whatever
-- the backlog of the others. url and secrets are null when the endpoint is gone.
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS given (endpoint_id, most, since)
),

due AS (
    SELECT pick.id
    FROM asked
    CROSS JOIN
        LATERAL (
            SELECT delivery.id FROM webhook_deliveries AS delivery
            WHERE
                delivery.endpoint_id = asked.endpoint_id
                AND delivery.state = 'pending'
                AND delivery.due_at >= asked.since
                AND delivery.due_at <= now()
            ORDER BY delivery.due_at
            LIMIT asked.most
            FOR UPDATE SKIP LOCKED
        ) AS pick
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
    RETURNING
        delivery.id,
        delivery.event_id,
        delivery.endpoint_id,
        delivery.ordered_object,
        delivery.attempts,
        delivery.due_at
)

SELECT
    claimed.id,
    claimed.event_id,
    claimed.endpoint_id,
    claimed.ordered_object,
    claimed.attempts,
    claimed.due_at,
    told.event_type,
    told.body,
    endpoint.url,
    endpoint.headers,
    endpoint.disabled_at IS NOT NULL AS disabled,
    endpoint.failing_since IS NOT NULL AS failing,
    CASE
        WHEN endpoint.old_secrets_until <= now() THEN endpoint.secrets[1:1]
        ELSE endpoint.secrets
    END AS secrets,
    CASE
        WHEN endpoint.old_secrets_until <= now() THEN endpoint.signing_keys[1:1]
        ELSE endpoint.signing_keys
    END AS signing_keys
FROM claimed
INNER JOIN outbox_events AS told ON claimed.event_id = told.id
LEFT JOIN webhook_endpoints AS endpoint ON claimed.endpoint_id = endpoint.id AND endpoint.deleted_at IS NULL
ORDER BY claimed.endpoint_id, claimed.event_id;

-- name: record_deliveries
-- Write down what came of deliveries: state `delivered`, `failed`, or `pending` again in retry_seconds; and the
-- attempt, if there was one (sent_at). The ids of those whose lease still held; the others were taken over and
-- are sent again with the same id.
WITH result AS (
    SELECT *
    FROM
        unnest(
            $1::uuid[],
            $2::uuid[],
            $3::text[],
            $4::text[],
            $5::double precision[],
            $6::timestamptz[],
            $7::integer[],
            $8::integer[],
            $9::text[],
            $10::text[]
        ) AS given (
            id, token, state, last_error, retry_seconds, sent_at, latency_ms, status, excerpt, error
        )
),

kept AS (
    INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt, error)
    SELECT
        result.id,
        result.sent_at,
        result.status,
        result.latency_ms,
        result.excerpt,
        result.error
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
    last_status = result.status,
    last_error = result.last_error,
    lease_worker = NULL,
    lease_token = NULL,
    lease_until = NULL
FROM result
WHERE delivery.id = result.id AND delivery.state = 'leased' AND delivery.lease_token = result.token
RETURNING delivery.id;

-- name: fail_backlog
-- Give up $3 of what is due to endpoint $1 for reason $2, and as many of what waits, as long as it is off or gone.
WITH closed AS (
    SELECT id FROM webhook_endpoints
    WHERE id = $1 AND (disabled_at IS NOT NULL OR deleted_at IS NOT NULL)
),

due AS (
    SELECT delivery.id FROM webhook_deliveries AS delivery
    INNER JOIN closed ON delivery.endpoint_id = closed.id
    WHERE delivery.state = 'pending'
    ORDER BY delivery.due_at
    LIMIT $3
    FOR UPDATE OF delivery SKIP LOCKED
),

behind AS (
    SELECT delivery.id FROM webhook_deliveries AS delivery
    INNER JOIN closed ON delivery.endpoint_id = closed.id
    WHERE delivery.state = 'waiting' AND delivery.ordered_object IS NOT NULL
    ORDER BY delivery.ordered_object, delivery.event_id
    LIMIT $3
    FOR UPDATE OF delivery SKIP LOCKED
)

UPDATE webhook_deliveries AS delivery
SET
    state = 'failed',
    last_error = $2,
    finished_at = clock_timestamp()
FROM (
    SELECT id FROM due
    UNION ALL
    SELECT id FROM behind
) AS given
WHERE delivery.id = given.id;

-- name: take_over_deliveries
-- Free up to $3 deliveries whose worker was not seen for $1 seconds or whose lease ran out; those that have
-- used up $2 attempts have failed. One row each: id, state, endpoint_id, ordered_object.
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
),

freed AS (
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
    RETURNING delivery.id, delivery.state, delivery.endpoint_id, delivery.ordered_object
),

kept AS (
    INSERT INTO webhook_attempts (delivery_id, at, latency_ms, excerpt, error)
    SELECT
        freed.id,
        clock_timestamp() AS at,
        0 AS latency_ms,
        '' AS excerpt,
        'The worker that was sending this is gone; the outcome is not known.' AS error
    FROM freed
)

SELECT
    freed.id,
    freed.state,
    freed.endpoint_id,
    freed.ordered_object
FROM freed;

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

-- name: prune_attempts
-- Remove up to $2 attempts that are older than $1 days, the oldest first.
DELETE FROM webhook_attempts
WHERE
    (delivery_id, at) IN (
        SELECT
            old.delivery_id,
            old.at
        FROM webhook_attempts AS old
        WHERE old.at < clock_timestamp() - make_interval(days => $1)
        ORDER BY old.at
        LIMIT $2
    );

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
