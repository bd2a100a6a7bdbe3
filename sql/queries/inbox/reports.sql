-- name: recent_inbox_events
-- Up to $1 events, the newest first.
SELECT id, provider, event_id, event_type, received_at
FROM inbox_events
ORDER BY id DESC
LIMIT $1;

-- name: recent_inbox_events_of
-- Up to $2 events of provider $1, the newest first.
SELECT id, provider, event_id, event_type, received_at
FROM inbox_events
WHERE provider = $1
ORDER BY id DESC
LIMIT $2;

-- name: list_arrivals
-- Up to $6 events with ids below $1, the newest first, narrowed by provider, type, state and time of arrival where
-- these are not null.
SELECT
    id, provider, event_id, event_type AS type, object_id, received_at, inbox_state(id, state) AS state, outcome,
    attempts, coalesce(last_error, reason) AS last_error, finished_at
FROM inbox_events
WHERE
    id < $1
    AND ($2::text IS NULL OR provider = $2)
    AND ($3::text IS NULL OR event_type = $3)
    AND ($4::text IS NULL OR (state = coalesce(nullif($4, 'leased'), 'pending') AND inbox_state(id, state) = $4))
    AND ($5::timestamptz IS NULL OR received_at >= $5)
ORDER BY id DESC
LIMIT $6;

-- name: arrivals_after
-- Up to $2 events with ids above $1, the oldest first.
SELECT
    id, provider, event_id, event_type AS type, object_id, received_at, inbox_state(id, state) AS state, outcome,
    attempts, coalesce(last_error, reason) AS last_error, finished_at
FROM inbox_events
WHERE id > $1
ORDER BY id
LIMIT $2;

-- name: arrivals_by_id
-- The events with these ids, the oldest first.
SELECT
    id, provider, event_id, event_type AS type, object_id, received_at, inbox_state(id, state) AS state, outcome,
    attempts, coalesce(last_error, reason) AS last_error, finished_at
FROM inbox_events
WHERE id = any((SELECT $1::uuid[])::uuid[])
ORDER BY id;

-- name: tidings_of_objects
-- Our events about each of these objects: how many there are, how many of them no worker has looked at yet, and their
-- deliveries by state.
SELECT
    told.object_id,
    count(DISTINCT told.id) AS events,
    count(DISTINCT told.id) FILTER (WHERE told.fanned_out_at IS NULL) AS unsent,
    count(delivery.id) FILTER (WHERE delivery.state = 'delivered') AS delivered,
    count(delivery.id) FILTER (WHERE delivery.state = 'failed') AS failed,
    count(delivery.id) FILTER (WHERE delivery.state NOT IN ('delivered', 'failed')) AS waiting
FROM outbox_events AS told
LEFT JOIN webhook_deliveries AS delivery ON told.id = delivery.event_id
WHERE told.object_id = any((SELECT $1::text[])::text[])
GROUP BY told.object_id;

-- name: inbox_counts
-- The number of events received from $2 until $3, by provider and type, the most frequent first. The id $1 is below
-- that of each of them, so that only the end of the table is read.
SELECT provider, event_type, count(*) AS events
FROM inbox_events
WHERE id >= $1 AND received_at >= $2 AND received_at < $3
GROUP BY provider, event_type
ORDER BY events DESC, provider ASC, event_type ASC
LIMIT 10000;

-- name: inbox_troubles
-- The numbers of dead events and of events due for more than $1 seconds, each counted up to 10,000.
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'dead'
            ORDER BY id
            LIMIT 10000
        ) AS dead
    ) AS dead,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'pending' AND due_at < now() - make_interval(secs => $1)
            ORDER BY due_at
            LIMIT 10000
        ) AS late
    ) AS late;

-- name: keep_summary
-- Keep a summary. No row comes back.
INSERT INTO reconciliation_log (id, status, details) VALUES ($1, 'completed', $2::jsonb);
