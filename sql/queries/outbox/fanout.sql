-- name: take_events_to_fan_out
-- Up to $1 events that have no deliveries yet, oldest first, locked: id, principal_id, event_type, object_id,
-- created_at.
SELECT id, principal_id, event_type, object_id, created_at FROM outbox_events
WHERE fanned_out_at IS NULL
ORDER BY id
LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: endpoints_for_events
-- One row for each given event and each living endpoint of its principal that wants the event's type and is not younger
-- than the event, in the order of the events: event_id, endpoint_id, disabled, and ordered_object for an endpoint that
-- wants order.
SELECT
    given.id AS event_id, endpoint.id AS endpoint_id, endpoint.disabled_at IS NOT NULL AS disabled,
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
                WHERE right(wanted.pattern, 1) = '*' AND starts_with(given.event_type, left(wanted.pattern, -1))
            )
        )
ORDER BY given.id, endpoint.id;

-- name: create_deliveries
-- One delivery for each event and endpoint given. A delivery to an endpoint that is switched off is kept as failed, and
-- can be sent later; one that goes in the order of its object waits to be released. No row comes back.
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, ordered_object, state, last_error, finished_at)
SELECT
    given.id, given.event_id, given.endpoint_id, given.ordered_object,
    CASE
        WHEN given.disabled THEN 'failed' WHEN given.ordered_object IS NULL THEN 'pending' ELSE 'waiting'
    END AS state,
    CASE WHEN given.disabled THEN 'endpoint_disabled' END AS last_error,
    CASE WHEN given.disabled THEN clock_timestamp() END AS finished_at
FROM
    unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[], $5::text[])
        AS given (id, event_id, endpoint_id, disabled, ordered_object)
ON CONFLICT (event_id, endpoint_id) DO NOTHING;

-- name: mark_fanned_out
-- The deliveries of events $1, of principals $2, exist now; each event gets the next position of its principal, whose
-- row stays locked until the commit. Principals are locked in their order, so that two such steps never wait for each
-- other in a circle.
WITH given AS (
    SELECT
        event.id, event.principal_id,
        row_number() OVER (PARTITION BY event.principal_id ORDER BY event.id) AS place,
        count(*) OVER (PARTITION BY event.principal_id) AS events
    FROM unnest($1::uuid[], $2::integer[]) AS event (id, principal_id)
),

drawn AS (
    INSERT INTO outbox_positions AS known (principal_id, last_position)
    SELECT given.principal_id, count(*) AS last_position FROM given
    GROUP BY given.principal_id
    ORDER BY given.principal_id
    ON CONFLICT (principal_id) DO UPDATE SET last_position = known.last_position + excluded.last_position
    RETURNING known.principal_id, known.last_position
)

UPDATE outbox_events AS told
SET fanned_out_at = clock_timestamp(), position = drawn.last_position - given.events + given.place
FROM given
INNER JOIN drawn ON given.principal_id = drawn.principal_id
WHERE told.id = given.id;
