-- name: prune_attempts
-- Remove up to $2 attempts that are older than $1 days and stand in no partition of their own day: removed.
SELECT partition_prune('webhook_attempts', $1::integer, $2::integer) AS removed;

-- name: prune_deliveries
-- Remove old deliveries of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
-- $5: their attempts, too.
SELECT pruned.removed, pruned.last
FROM outbox_prune_done($1::integer, $2::uuid, $3::uuid, $4::integer, $5::boolean) AS pruned;

-- name: prune_events
-- Remove old events of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
SELECT pruned.removed, pruned.last FROM outbox_prune_events($1::integer, $2::uuid, $3::uuid, $4::integer) AS pruned;
