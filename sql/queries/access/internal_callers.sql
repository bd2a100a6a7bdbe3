-- name: find_internal_caller
-- The service whose key has the hash $1, unless the key has ended; the seconds to its end (null: no expiry).
SELECT
    c.key_id, c.name, c.allowed_access,
    extract(EPOCH FROM c.expires_at - clock_timestamp())::float8 AS seconds_left,
    coalesce(c.last_used_at < clock_timestamp() - interval '1 hour', TRUE) AS use_is_news
FROM internal_callers AS c
WHERE
    c.key_hash = $1 AND c.revoked_at IS NULL AND coalesce(c.expires_at > clock_timestamp(), TRUE);

-- name: touch_internal_caller
-- Record a use of the key $1, at most once an hour over all processes. No row comes back.
UPDATE internal_callers SET last_used_at = clock_timestamp()
WHERE key_id = $1 AND coalesce(last_used_at < clock_timestamp() - interval '1 hour', TRUE);

-- name: insert_internal_caller
-- Store a new key. No row comes back.
INSERT INTO internal_callers (key_id, name, key_hash, allowed_access, description, expires_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_internal_callers
-- Keys, newest first, of one service or (null) of all; never their hashes.
SELECT
    c.key_id, c.name AS principal, c.allowed_access AS scopes, c.description, c.created_by, c.created_at, c.expires_at,
    c.revoked_at, c.last_used_at, coalesce(c.expires_at <= clock_timestamp(), FALSE) AS expired
FROM internal_callers AS c
WHERE $1::text IS NULL OR c.name = $1
ORDER BY c.created_at DESC, c.key_id ASC
LIMIT $2;

-- name: revoke_internal_caller
-- The time from which the key is revoked; a second revocation keeps the first time. No row: unknown.
UPDATE internal_callers SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE key_id = $1
RETURNING revoked_at;
