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
