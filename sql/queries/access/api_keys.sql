-- name: find_api_key
-- The key with its principal, whether it has ended, and the seconds to its end (null: no expiry). No row: unknown.
SELECT
    api_keys.secret_hash, api_keys.scopes, principals.id AS principal_id, principals.name AS principal_name,
    api_keys.revoked_at IS NOT NULL OR coalesce(api_keys.expires_at <= clock_timestamp(), FALSE) AS ended,
    extract(EPOCH FROM api_keys.expires_at - clock_timestamp())::float8 AS seconds_left,
    coalesce(api_keys.last_used_at < clock_timestamp() - interval '1 hour', TRUE) AS use_is_news
FROM api_keys
INNER JOIN principals ON api_keys.principal_id = principals.id
WHERE api_keys.key_id = $1;

-- name: touch_api_key
-- Record a use, at most once an hour over all processes. No row comes back.
UPDATE api_keys SET last_used_at = clock_timestamp()
WHERE key_id = $1 AND coalesce(last_used_at < clock_timestamp() - interval '1 hour', TRUE);

-- name: ensure_principal
-- The id of the principal of this name, made if there was none.
INSERT INTO principals (name) VALUES ($1)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING id;

-- name: insert_api_key
-- Store a new key. No row comes back.
INSERT INTO api_keys (key_id, principal_id, secret_hash, scopes, description, expires_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_api_keys
-- Keys, newest first, of one principal or (null) of all; never their hashes.
SELECT
    api_keys.key_id, principals.name AS principal, api_keys.scopes, api_keys.description, api_keys.created_by,
    api_keys.created_at, api_keys.expires_at, api_keys.revoked_at, api_keys.last_used_at,
    coalesce(api_keys.expires_at <= clock_timestamp(), FALSE) AS expired
FROM api_keys
INNER JOIN principals ON api_keys.principal_id = principals.id
WHERE $1::text IS NULL OR principals.name = $1
ORDER BY api_keys.created_at DESC, api_keys.key_id ASC
LIMIT $2;

-- name: revoke_api_key
-- The time from which the key is revoked; a second revocation keeps the first time. No row: unknown.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE key_id = $1
RETURNING revoked_at;
