-- name: create_webhook_endpoint
-- The endpoint as stored, switched off if its URL has to prove itself ($10). No row when the principal has $8 living
-- endpoints already.
INSERT INTO webhook_endpoints (
    id, principal_id, url, event_types, description, headers, secrets, signing_keys, verify, disabled_at,
    disabled_reason, ordered, batch_size
)
SELECT
    $1 AS id, $2 AS principal_id, $3 AS url, $4 AS event_types, $5 AS description, $6::jsonb AS headers,
    $7 AS secrets, $9 AS signing_keys, $10 AS verify,
    CASE WHEN $10 THEN clock_timestamp() END AS disabled_at,
    CASE WHEN $10 THEN 'unverified' END AS disabled_reason,
    $11 AS ordered, $12 AS batch_size
WHERE (SELECT count(*) FROM webhook_endpoints WHERE principal_id = $2 AND deleted_at IS NULL) < $8
RETURNING
    id, url, event_types, description, headers, signing_keys, ordered, batch_size, verify, verified_at, created_at,
    old_secrets_until, disabled_at, disabled_reason, failing_since, failed_deliveries, revision;

-- name: list_webhook_endpoints
-- Up to $3 living endpoints of principal $1 with an id above $2, in the order of their ids.
SELECT
    id, url, event_types, description, headers, signing_keys, ordered, batch_size, verify, verified_at, created_at,
    old_secrets_until, disabled_at, disabled_reason, failing_since, failed_deliveries, revision
FROM webhook_endpoints
WHERE principal_id = $1 AND id > $2 AND deleted_at IS NULL
ORDER BY id
LIMIT $3;

-- name: find_webhook_endpoint
-- The living endpoint $2 of principal $1 (null: of any), or no row.
SELECT
    id, url, event_types, description, headers, signing_keys, ordered, batch_size, verify, verified_at, created_at,
    old_secrets_until, disabled_at, disabled_reason, failing_since, failed_deliveries, revision
FROM webhook_endpoints
WHERE ($1::integer IS NULL OR principal_id = $1) AND id = $2 AND deleted_at IS NULL;

-- name: lock_webhook_endpoint
-- The revision of the living endpoint $2 of principal $1, whose row is locked, or no row.
SELECT revision FROM webhook_endpoints
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
FOR UPDATE;

-- name: update_webhook_endpoint
-- The living endpoint $2 of principal $1 after the change, or no row; a field that is null stays as it is. An endpoint
-- whose URL has yet to prove itself ($8, or as before) is off. Signing keys ($7) are dropped when none are given, and
-- else only taken by an endpoint that has none.
WITH known AS (
    SELECT
        id,
        coalesce($8::boolean, verify) AS verify,
        CASE WHEN url = coalesce($3, url) THEN verified_at END AS verified_at,
        coalesce($8::boolean, verify) AND (url <> coalesce($3, url) OR verified_at IS NULL) AS unproven
    FROM webhook_endpoints
    WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
    FOR UPDATE
)

UPDATE webhook_endpoints AS endpoint
SET
    revision = endpoint.revision + 1,
    url = coalesce($3, endpoint.url),
    event_types = coalesce($4::text[], endpoint.event_types),
    description = coalesce($5, endpoint.description),
    headers = coalesce($6::jsonb, endpoint.headers),
    signing_keys = CASE
        WHEN $7::text[] = '{}' THEN '{}'
        WHEN endpoint.signing_keys = '{}' THEN coalesce($7, '{}')
        ELSE endpoint.signing_keys
    END,
    ordered = coalesce($9, endpoint.ordered),
    batch_size = coalesce($10, endpoint.batch_size),
    verify = known.verify,
    verified_at = known.verified_at,
    disabled_at = CASE
        WHEN known.unproven THEN coalesce(endpoint.disabled_at, clock_timestamp()) ELSE endpoint.disabled_at
    END,
    disabled_reason = CASE
        WHEN known.unproven THEN coalesce(endpoint.disabled_reason, 'unverified') ELSE endpoint.disabled_reason
    END
FROM known
WHERE endpoint.id = known.id
RETURNING
    endpoint.id, endpoint.url, endpoint.event_types, endpoint.description, endpoint.headers, endpoint.signing_keys,
    endpoint.ordered, endpoint.batch_size, endpoint.verify, endpoint.verified_at, endpoint.created_at,
    endpoint.old_secrets_until, endpoint.disabled_at, endpoint.disabled_reason, endpoint.failing_since,
    endpoint.failed_deliveries, endpoint.revision;

-- name: switch_webhook_endpoint
-- Endpoint $1, switched off for reason $2, or on (null), which forgets its failures. No row when it shall be on and its
-- URL has yet to prove itself.
UPDATE webhook_endpoints
SET
    revision = revision + 1,
    disabled_at = CASE WHEN $2::text IS NOT NULL THEN coalesce(disabled_at, clock_timestamp()) END,
    disabled_reason = $2,
    failing_since = CASE WHEN $2 IS NOT NULL THEN failing_since END,
    failed_attempts = CASE WHEN $2 IS NOT NULL THEN failed_attempts ELSE 0 END,
    failed_deliveries = CASE WHEN $2 IS NOT NULL THEN failed_deliveries ELSE 0 END
WHERE id = $1 AND ($2::text IS NOT NULL OR NOT verify OR verified_at IS NOT NULL)
RETURNING
    id, url, event_types, description, headers, signing_keys, ordered, batch_size, verify, verified_at, created_at,
    old_secrets_until, disabled_at, disabled_reason, failing_since, failed_deliveries, revision;

-- name: rotate_webhook_secret
-- Secret $3, and signing key $5 for an endpoint that has such, are the first of endpoint $2 of principal $1 from now
-- on; the others count for $4 seconds more, or no longer. The query answers old_secrets_until, signing_keys and
-- revision, or no row when there is no such endpoint, and when $6 secrets count already and shall go on to.
UPDATE webhook_endpoints
SET
    revision = revision + 1,
    secrets = CASE
        WHEN $4::double precision <= 0 THEN ARRAY[$3::text]
        WHEN old_secrets_until <= clock_timestamp() THEN ARRAY[$3::text, secrets[1]]
        ELSE ARRAY[$3::text] || secrets
    END,
    signing_keys = CASE
        WHEN signing_keys = '{}' THEN signing_keys
        WHEN $4::double precision <= 0 THEN ARRAY[$5::text]
        WHEN old_secrets_until <= clock_timestamp() THEN ARRAY[$5::text, signing_keys[1]]
        ELSE ARRAY[$5::text] || signing_keys
    END,
    old_secrets_until = clock_timestamp() + make_interval(secs => $4::double precision)
WHERE
    principal_id = $1 AND id = $2 AND deleted_at IS NULL
    AND ($4 <= 0 OR old_secrets_until <= clock_timestamp() OR cardinality(secrets) < $6)
RETURNING old_secrets_until, signing_keys, revision;

-- name: delete_webhook_endpoint
-- The living endpoint $2 of principal $1 is deleted. No row comes back. Its deliveries fail when their turn comes.
UPDATE webhook_endpoints SET deleted_at = clock_timestamp(), revision = revision + 1
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: endpoints_to_reseal
-- Up to $2 living endpoints with ids above $1, in the order of their ids: id, secrets, signing_keys.
SELECT id, secrets, signing_keys FROM webhook_endpoints
WHERE id > $1 AND deleted_at IS NULL
ORDER BY id
LIMIT $2;

-- name: reseal_endpoint
-- Give endpoint $1 the secrets $4 and the signing keys $5 in the place of $2 and $3, which say the same.
UPDATE webhook_endpoints SET secrets = $4, signing_keys = $5
WHERE id = $1 AND secrets = $2 AND signing_keys = $3;
