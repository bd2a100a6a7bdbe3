-- name: list_partitions
-- All partitions that there are or were, by table and time: name, parent, state, from_at, to_at, row_count, sha256,
-- location.
SELECT
    p.name, p.parent,
    CASE
        WHEN p.restored_at IS NOT NULL THEN 'restored'
        WHEN p.detached_at IS NULL THEN 'attached'
        WHEN p.dropped_at IS NULL THEN 'detached'
        WHEN p.archived_at IS NULL THEN 'removed'
        ELSE 'archived'
    END AS state,
    p.from_at, p.to_at, p.row_count, p.sha256, p.location
FROM partitions AS p
ORDER BY p.parent, p.to_at;

-- name: reopen_partition
-- Make the dropped and archived partition $1 anew, empty and beside its table. No value comes back.
SELECT partition_reopen($1) AS reopened;

-- name: fill_partition
-- Add rows $2, each as JSON, to the partition $1 that is being brought back: their number.
SELECT partition_fill($1, $2::text[]) AS filled;

-- name: attach_partition
-- Attach the partition $1 that was brought back to its table. No value comes back.
SELECT partition_attach($1) AS attached;

-- name: forget_partition
-- Remove the partition $1 that was brought back. No value comes back.
SELECT partition_forget($1) AS forgotten;
