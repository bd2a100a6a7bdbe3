-- name: old_events
-- From the source: all events that were taken in.
SELECT
    e.provider, e.event_id, e.event_type, e.payload_json, e.received_at
FROM payment_events AS e
ORDER BY e.id;

-- name: old_dead_letters
-- From the source: messages that were to be tried again.
SELECT
    d.id, d.provider, d.event_id, d.error_kind
FROM dlq_messages AS d
ORDER BY d.id;

-- name: import_event
-- Store an event that the old service has taken in, so that a repetition is known: id, provider, event id, type,
-- object, received, body. It is done, and has no effect. No row comes back where it is known.
WITH stored AS (
    INSERT INTO inbox_events (
        id, provider, event_id, event_type, object_id, received_at, headers, state, outcome, reason, finished_at
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, '{}', 'done', 'ignored', 'taken in by the service before', clock_timestamp()
    )
    ON CONFLICT DO NOTHING
    RETURNING id
)

INSERT INTO inbox_bodies (id, body)
SELECT
    s.id, $7 AS body
FROM stored AS s
RETURNING id;
