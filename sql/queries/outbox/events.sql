-- name: write_events
-- Store events in the transaction whose effects they tell of: ids, principals, types, bodies, objects. $6 lets
-- them count as fanned out: the caller makes their deliveries. No row comes back.
INSERT INTO outbox_events (id, principal_id, event_type, body, object_id, fanned_out_at)
SELECT
    e.id, e.principal_id, e.event_type, e.body, e.object_id,
    CASE WHEN $6::boolean THEN clock_timestamp() END AS fanned_out_at
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::bytea[], $5::text[])
    AS e (id, principal_id, event_type, body, object_id);
