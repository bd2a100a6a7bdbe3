-- name: open_session
-- Store the sign-in $1 of user $2, from the client $3, for $4 seconds. $5 and $6 are the hashes of the refresh token's
-- own secret and of its family's; null without such a token. No row comes back.
INSERT INTO sessions (id, user_id, client, expires_at, refresh_hash, family_hash)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), $5, $6);

-- name: rotate_refresh
-- One row when the sign-in $1 is live and its family's hash is $2: the user, `live`, and the hash of the newest token.
-- That becomes $4 for $5 seconds where it was $3. A token with another hash was used before, which ends the sign-in,
-- unless it was used in the last $6 seconds and its successor, $4 or one of $7, is still the newest one: then its
-- answer was lost.
UPDATE sessions AS s SET
    refresh_hash = CASE WHEN s.refresh_hash = $3 THEN $4 ELSE s.refresh_hash END,
    used_hash = CASE WHEN s.refresh_hash = $3 THEN $3 ELSE s.used_hash END,
    rotated_at = CASE WHEN s.refresh_hash = $3 THEN clock_timestamp() ELSE s.rotated_at END,
    revoked_at = CASE
        WHEN s.refresh_hash = $3 THEN NULL
        WHEN
            s.used_hash = $3 AND (s.refresh_hash = $4 OR s.refresh_hash = any($7::bytea[]))
            AND s.rotated_at > clock_timestamp() - make_interval(secs => $6) THEN NULL
        ELSE clock_timestamp()
    END,
    used_at = clock_timestamp(),
    expires_at = CASE
        WHEN s.refresh_hash = $3 THEN clock_timestamp() + make_interval(secs => $5) ELSE s.expires_at
    END
WHERE s.id = $1 AND s.family_hash = $2 AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
RETURNING s.user_id, s.refresh_hash, s.revoked_at IS NULL AS live;

-- name: end_session
-- End the sign-in $1 of user $2, and return its id; no row for an unknown or ended one.
UPDATE sessions SET revoked_at = clock_timestamp()
WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL
RETURNING id;

-- name: end_older_tokens
-- From now on tokens of user $1 that name no sign-in count for nothing if they were issued before, or in the next $2
-- seconds by a clock that is ahead. No row comes back.
UPDATE users SET tokens_valid_from = clock_timestamp() + make_interval(secs => $2) WHERE id = $1;

-- name: end_passkeys
-- Remove all passkeys of user $1; the number of rows is theirs.
DELETE FROM passkeys WHERE user_id = $1;

-- name: end_all_sessions
-- End every sign-in of user $1; the number of rows is that of the sign-ins.
UPDATE sessions SET revoked_at = clock_timestamp()
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp();

-- name: sessions_of_user
-- The live sign-ins of user $1, newest first, $2 at most: id, client, created_at, used_at, expires_at.
SELECT id, client, created_at, used_at, expires_at
FROM sessions
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
ORDER BY created_at DESC, id DESC
LIMIT $2;
