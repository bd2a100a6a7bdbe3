-- name: prune_audit_events
-- Remove up to $2 audit records older than $1 days, and return their number.
SELECT prune_audit_events($1, $2) AS removed;

-- name: prune_sessions
-- Remove up to $1 sign-ins that ended a day ago or earlier. No row comes back.
DELETE FROM sessions
WHERE id IN (
    SELECT id FROM sessions
    WHERE expires_at < now() - interval '1 day'
    ORDER BY expires_at, id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
);
