-- name: write_audit_event
-- Store an audit record in the transaction that it is about. No row comes back.
INSERT INTO audit_events (id, type, actor, user_id, object_id, data) VALUES ($1, $2, $3, $4, $5, $6::text::jsonb);

-- name: platform_settings
-- Everything that an administrator has set: name, value as JSON text.
SELECT name, value::text AS value FROM platform_settings;

-- name: lock_platform_settings
-- Nothing; afterwards nobody else changes settings until this transaction ends.
LOCK TABLE platform_settings IN SHARE ROW EXCLUSIVE MODE;

-- name: set_platform_setting
-- Store a setting $1 with the JSON text $2, by $3. No row comes back.
INSERT INTO platform_settings (name, value, updated_by) VALUES ($1, $2::text::jsonb, $3)
ON CONFLICT (name) DO UPDATE
    SET value = excluded.value, updated_by = excluded.updated_by, updated_at = clock_timestamp();

-- name: settings_in_force
-- What an administrator has set, by name: value as JSON text, by whom and when.
SELECT name, value::text AS value, updated_by, updated_at FROM platform_settings ORDER BY name;

-- name: audit_events
-- Up to $7 audit records with ids below $5 and not below $6, newest first: of type $1, about user $2, by actor $3, of
-- object $4 (null: any).
SELECT id, type, actor, user_id, object_id, data::text AS data, created_at FROM audit_events
WHERE
    ($1::text IS NULL OR type = $1)
    AND ($2::uuid IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR actor = $3)
    AND ($4::text IS NULL OR object_id = $4)
    AND id < $5
    AND id >= $6
ORDER BY id DESC
LIMIT $7;

-- name: prune_audit_events
-- Remove up to $2 audit records older than $1 days: how many there were.
SELECT prune_audit_events($1, $2) AS removed;

-- name: prune_sessions
-- Remove up to $1 sign-ins that ended a day ago or earlier. No row comes back.
DELETE FROM sessions
WHERE id IN (
    SELECT id FROM sessions
    WHERE expires_at < clock_timestamp() - interval '1 day'
    ORDER BY expires_at, id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
);
