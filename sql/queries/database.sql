-- name: session
-- Each of the settings $1 as this session has it, and its role.
SELECT
    s.name,
    s.setting
FROM pg_settings AS s
WHERE lower(s.name) = ANY($1::text[])
UNION ALL
SELECT
    'role' AS name,
    current_user AS setting;
