-- name: beat
-- Record that this worker lives. No row comes back.
INSERT INTO workers (id, name) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp();

-- name: retire_worker
-- Remove this worker's row, so that what it still held is free at once.
DELETE FROM workers
WHERE id = $1;

-- name: prune_workers
-- Remove the rows of workers that were last seen before the given age. Rows that no lease names any more go.
DELETE FROM workers
WHERE seen_at < clock_timestamp() - make_interval(secs => $1);

-- name: pulse
-- One row: the age in seconds of the oldest batch that is not in the feed yet, 0 when there is none; the seconds since
-- any worker's last heartbeat, infinite when there is no worker; and how many dead letters wait, counted up to 10,000.
SELECT
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(b.recorded_at)), 0)::float8
        FROM batches AS b
        WHERE b.seq > (SELECT h.batch FROM feed_head AS h)
    ) AS feed_lag_seconds,
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - max(w.seen_at))::float8, 'Infinity')
        FROM workers AS w
    ) AS heartbeat_age_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'dead'
            ORDER BY finished_at
            LIMIT 10000
        ) AS dead
    ) AS dead_letters;
