-- name: write_audit_events
-- Store audit records in the transaction that they are about: ids, types, actors, users, objects, data. No row comes
-- back.
INSERT INTO audit_events (id, type, actor, user_id, object_id, data)
SELECT a.id, a.type, a.actor, a.user_id, a.object_id, a.data::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
    AS a (id, type, actor, user_id, object_id, data);

-- name: audit_events
-- Up to $7 audit records with ids below $5 and not below $6, newest first: of type $1, about user $2, by actor $3, of
-- object $4, from $8, before $9 (null: any).
SELECT id, type, actor, user_id, object_id, data::text AS data, created_at FROM audit_events
WHERE
    ($1::text IS NULL OR type = $1)
    AND ($2::uuid IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR actor = $3)
    AND ($4::text IS NULL OR object_id = $4)
    AND id < $5
    AND id >= $6
    AND ($8::timestamptz IS NULL OR created_at >= $8)
    AND ($9::timestamptz IS NULL OR created_at < $9)
ORDER BY id DESC
LIMIT $7;
