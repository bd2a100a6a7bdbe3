-- name: make_partition
-- Make the next partition of table $1, for the next $2 (day, month), unless the last one ends more than $3 days from
-- now: its name, or null.
SELECT partition_make($1, $2, make_interval(days => $3)) AS name;

-- name: detach_partition
-- Detach the oldest partition of table $1 of which all rows are older than $2 days: its name, or null.
SELECT partition_detach($1, $2) AS name;

-- name: detached_partitions
-- The partitions that are detached and to be removed, the oldest first: name, parent, from_at, to_at, archived_at.
SELECT p.name, p.parent, p.from_at, p.to_at, p.archived_at
FROM partitions AS p
WHERE p.detached_at IS NOT NULL AND p.dropped_at IS NULL AND p.restored_at IS NULL
ORDER BY p.to_at;

-- name: drop_partition
-- Drop the detached partition $1 if it is archived, or, with $2, in any case: whether it was there.
SELECT partition_drop($1, $2) AS dropped;
