-- name: write_audit_event
-- Store an audit record in the transaction that it is about. No row comes back.
INSERT INTO audit_events (id, type, actor, user_id, object_id, data) VALUES ($1, $2, $3, $4, $5, $6::text::jsonb);

-- name: audit_events
-- Up to $7 audit records with ids below $5 and not below $6, newest first: of type $1, about user $2, by actor $3, of
-- object $4 (null: any).
SELECT id, type, actor, user_id, object_id, data::text AS data, created_at FROM audit_events
WHERE
    ($1::text IS NULL OR type = $1)
    AND ($2::uuid IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR actor = $3)
    AND ($4::text IS NULL OR object_id = $4)
    AND id < $5
    AND id >= $6
ORDER BY id DESC
LIMIT $7;
