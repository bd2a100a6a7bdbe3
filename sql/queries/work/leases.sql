-- name: beat
-- Record that this worker lives. No row comes back.
INSERT INTO workers (id, name) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp();

-- name: retire_worker
-- Remove this worker's row, so that rows that it still held are free at once.
DELETE FROM workers
WHERE id = $1;

-- name: prune_workers
-- Remove the rows of workers that were last seen before the given age; no lease names these any more.
DELETE FROM workers
WHERE seen_at < clock_timestamp() - make_interval(secs => $1);
