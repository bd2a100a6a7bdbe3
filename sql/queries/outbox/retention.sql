-- name: prune_attempts
-- Remove up to $2 attempts that are older than $1 days, the oldest first.
-- The time is that of the transaction: no index serves a comparison with a clock that moves while it is read.
DELETE FROM webhook_attempts
WHERE
    ctid = any(
        array(
            SELECT old.ctid FROM webhook_attempts AS old
            WHERE old.at < now() - make_interval(days => $1)
            ORDER BY old.at
            LIMIT $2
        )
    );

-- name: prune_deliveries
-- Remove old deliveries of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
SELECT pruned.removed, pruned.last FROM outbox_prune_deliveries($1::integer, $2::uuid, $3::uuid, $4::integer) AS pruned;

-- name: prune_events
-- Remove old events of those between ids $2 and $3, looking at up to $4: removed, and last, the id to go on from.
SELECT pruned.removed, pruned.last FROM outbox_prune_events($1::integer, $2::uuid, $3::uuid, $4::integer) AS pruned;
