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
