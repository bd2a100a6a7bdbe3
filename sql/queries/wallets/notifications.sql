-- name: write_events
-- Store events in the transaction whose effects they tell of: ids, principals, types, objects, bodies.
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body)
SELECT e.id, e.principal_id, e.event_type, e.object_id, e.body
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bytea[])
    AS e (id, principal_id, event_type, object_id, body);

-- name: write_audit_events
-- Store audit records in the transaction that they are about: ids, types, actors, users, objects, data.
INSERT INTO audit_events (id, type, actor, user_id, object_id, data)
SELECT a.id, a.type, a.actor, a.user_id, a.object_id, a.data::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
    AS a (id, type, actor, user_id, object_id, data);
