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
