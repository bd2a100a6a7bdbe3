-- name: platform_settings
-- All settings that an administrator has set: name, value as JSON text.
SELECT name, value::text AS value FROM platform_settings;

-- name: lock_platform_settings
-- Lock the settings against changes by others until this transaction ends. No row comes back.
LOCK TABLE platform_settings IN SHARE ROW EXCLUSIVE MODE;

-- name: set_platform_setting
-- Store a setting $1 with the JSON text $2, by $3. No row comes back.
INSERT INTO platform_settings (name, value, updated_by) VALUES ($1, $2::text::jsonb, $3)
ON CONFLICT (name) DO UPDATE
    SET value = excluded.value, updated_by = excluded.updated_by, updated_at = clock_timestamp();

-- name: settings_in_force
-- The settings that an administrator has set, by name: value as JSON text, updated_by, updated_at.
SELECT name, value::text AS value, updated_by, updated_at FROM platform_settings ORDER BY name;
