-- name: prune_attempts
-- Remove up to $2 attempts that are older than $1 days, the oldest first.
DELETE FROM webhook_attempts
WHERE
    (delivery_id, at) IN (
        SELECT old.delivery_id, old.at FROM webhook_attempts AS old
        WHERE old.at < clock_timestamp() - make_interval(days => $1)
        ORDER BY old.at
        LIMIT $2
    );

-- name: prune_deliveries
-- Remove old deliveries of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
SELECT pruned.removed, pruned.last FROM outbox_prune_deliveries($1::integer, $2::uuid, $3::uuid, $4::integer) AS pruned;

-- name: prune_events
-- Remove old events of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
SELECT pruned.removed, pruned.last FROM outbox_prune_events($1::integer, $2::uuid, $3::uuid, $4::integer) AS pruned;
