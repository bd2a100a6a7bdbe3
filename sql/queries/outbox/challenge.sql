-- name: endpoint_to_challenge
-- The living endpoint $2 of principal $1 as a challenge needs it, or no row: url, headers, secrets, signing_keys,
-- revision.
SELECT
    url, headers, revision,
    CASE WHEN old_secrets_until <= clock_timestamp() THEN secrets[1:1] ELSE secrets END AS secrets,
    CASE WHEN old_secrets_until <= clock_timestamp() THEN signing_keys[1:1] ELSE signing_keys END AS signing_keys
FROM webhook_endpoints
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: note_endpoint_proven
-- URL $2 of endpoint $1 has echoed a challenge: an endpoint that was off as unverified is on. The query answers the
-- id, or no row when the endpoint has another URL by now, or not the expected revision $3 (null: any).
UPDATE webhook_endpoints
SET
    revision = revision + 1,
    verified_at = clock_timestamp(),
    disabled_at = CASE WHEN disabled_reason = 'unverified' THEN NULL ELSE disabled_at END,
    disabled_reason = nullif(disabled_reason, 'unverified')
WHERE id = $1 AND url = $2 AND deleted_at IS NULL AND ($3::bigint IS NULL OR revision = $3)
RETURNING id;
