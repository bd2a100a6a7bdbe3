-- name: inbox_backlog
-- The number of events that are due and not done (counted up to 10,000), the age of the oldest in seconds, and the
-- number of dead letters.
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'pending' AND due_at <= now()
            ORDER BY due_at
            LIMIT 10000
        ) AS due
    ) AS due,
    (
        SELECT coalesce(extract(EPOCH FROM now() - min(due_at)), 0)::double precision
        FROM inbox_events
        WHERE state = 'pending' AND due_at <= now()
    ) AS oldest_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'dead'
            ORDER BY id
            LIMIT 10000
        ) AS dead
    ) AS dead;

-- name: outbox_backlog
-- The numbers of events that wait for their fan-out and of deliveries that are due (each counted up to 10,000), and the
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
