-- name: write_events
-- Store events in the transaction whose effects they tell of: ids, principals, types, objects, bodies. $6 lets
-- them count as fanned out: the caller makes their deliveries. No row comes back.
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body, fanned_out_at)
SELECT
    e.id, e.principal_id, e.event_type, e.object_id, e.body,
    CASE WHEN $6::boolean THEN clock_timestamp() END AS fanned_out_at
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bytea[])
    AS e (id, principal_id, event_type, object_id, body);
