-- name: inbox_source_keys
-- Kind, options and the keys that are good now of the enabled source of this name, to verify a request to it.
SELECT
    kind, options,
    CASE
        WHEN previous_until > clock_timestamp() THEN ARRAY[secret, previous_secret]
        ELSE ARRAY[secret]
    END AS secrets
FROM inbox_sources
WHERE name = $1 AND disabled_at IS NULL AND deleted_at IS NULL;
