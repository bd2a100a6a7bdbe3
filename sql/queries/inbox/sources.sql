-- name: create_inbox_source
-- The new source. No row: the name is taken, or the principal has $8 sources already.
INSERT INTO inbox_sources (id, principal_id, name, description, kind, options, secret)
SELECT
    $1::uuid AS id, $2::integer AS principal_id, $3::text AS name, $4::text AS description, $5::text AS kind,
    $6::jsonb AS options, $7::text AS secret
WHERE (
    SELECT count(*) FROM inbox_sources
    WHERE inbox_sources.principal_id = $2 AND inbox_sources.deleted_at IS NULL
) < $8
ON CONFLICT (name) DO NOTHING
RETURNING id, name, description, kind, options, previous_until, disabled_at, created_at, revision;

-- name: inbox_source_name_taken
-- Whether the name has ever been given to a source.
SELECT exists(SELECT 1 FROM inbox_sources WHERE name = $1);

-- name: list_inbox_sources
-- Up to $3 sources of a principal behind id $2, oldest first.
SELECT id, name, description, kind, options, previous_until, disabled_at, created_at, revision
FROM inbox_sources
WHERE principal_id = $1 AND deleted_at IS NULL AND id > $2
ORDER BY id
LIMIT $3;

-- name: find_inbox_source
-- One source of a principal.
SELECT id, name, description, kind, options, previous_until, disabled_at, created_at, revision
FROM inbox_sources
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: lock_inbox_source
-- One source of a principal, locked, because a change reads its options and its revision first.
SELECT id, name, description, kind, options, previous_until, disabled_at, created_at, revision
FROM inbox_sources
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
FOR UPDATE;

-- name: update_inbox_source
-- The source with options $4, and with $3 (description) and $5 (enabled or not) where these are not null.
UPDATE inbox_sources
SET
    revision = revision + 1,
    description = coalesce($3, description), options = $4,
    disabled_at = CASE
        WHEN $5::boolean IS NULL THEN disabled_at
        WHEN $5::boolean THEN NULL
        ELSE coalesce(disabled_at, clock_timestamp())
    END
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
RETURNING id, name, description, kind, options, previous_until, disabled_at, created_at, revision;

-- name: rotate_inbox_source
-- The source with secret $3; the one before it stays good for $4 seconds, any older one ends now.
UPDATE inbox_sources
SET
    revision = revision + 1,
    secret = $3,
    previous_secret = CASE WHEN $4::float8 > 0 THEN secret END,
    previous_until = CASE WHEN $4::float8 > 0 THEN clock_timestamp() + make_interval(secs => $4) END
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL
RETURNING id, name, description, kind, options, previous_until, disabled_at, created_at, revision;

-- name: delete_inbox_source
-- The source is deleted: its keys are gone, the name stays taken. No row comes back.
UPDATE inbox_sources
SET
    revision = revision + 1,
    deleted_at = clock_timestamp(), secret = '-', previous_secret = NULL, previous_until = NULL
WHERE principal_id = $1 AND id = $2 AND deleted_at IS NULL;

-- name: principal_of_name
-- The id of the principal of this name.
SELECT id FROM principals
WHERE name = $1;

-- name: list_all_inbox_sources
-- Up to $1 sources with their principals, by name.
SELECT
    source.id, source.name, source.description, source.kind, source.options, source.previous_until, source.disabled_at,
    source.created_at, source.revision, principal.name AS principal
FROM inbox_sources AS source
INNER JOIN principals AS principal ON source.principal_id = principal.id
WHERE source.deleted_at IS NULL
ORDER BY source.name
LIMIT $1;

-- name: find_inbox_source_by_name
-- The source of this name, whichever principal has it, with principal_id.
SELECT id, name, description, kind, options, previous_until, disabled_at, created_at, revision, principal_id
FROM inbox_sources
WHERE name = $1 AND deleted_at IS NULL;

-- name: sources_to_reseal
-- Up to $2 living sources with ids above $1, in the order of their ids: id, name, secret, previous_secret.
SELECT id, name, secret, previous_secret FROM inbox_sources
WHERE id > $1 AND deleted_at IS NULL
ORDER BY id
LIMIT $2;

-- name: reseal_source
-- Give source $1 the keys $4 and $5 in the place of $2 and $3, which say the same.
UPDATE inbox_sources SET secret = $4, previous_secret = $5
WHERE id = $1 AND secret = $2 AND previous_secret IS NOT DISTINCT FROM $3;
