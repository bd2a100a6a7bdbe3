-- name: fan_out
-- Fan out up to $1 events from id $2 on; see sql/functions/outbox_fan_out.sql. $3 to $5 are the lease of the deliveries
-- that are handed over (worker, token, seconds), $6 to $13 the room that the sender has for them.
SELECT
    told.events, told.last, told.due, told.turn_endpoints, told.turn_objects, told.id, told.event_id, told.endpoint_id,
    told.ordered_object, told.attempts, told.event_type, told.body, told.url, told.headers, told.disabled, told.failing,
    told.secrets, told.signing_keys
FROM outbox_fan_out(
    $1::integer, $2::uuid, $3::uuid, $4::uuid, $5::double precision, $6::uuid[], $7::integer[], $8::integer[],
    $9::boolean[], $10::integer, $11::integer, $12::integer, $13::integer
) AS told;

-- name: create_deliveries
-- One delivery for each event and endpoint given. A delivery to an endpoint that is switched off is kept as failed, and
-- can be sent later; one that goes in the order of its object waits to be released. No row comes back.
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, ordered_object, state, last_error, finished_at)
SELECT
    given.id, given.event_id, given.endpoint_id, given.ordered_object,
    CASE
        WHEN given.disabled THEN 'failed' WHEN given.ordered_object IS NULL THEN 'pending' ELSE 'waiting'
    END AS state,
    CASE WHEN given.disabled THEN 'endpoint_disabled' END AS last_error,
    CASE WHEN given.disabled THEN clock_timestamp() END AS finished_at
FROM
    unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[], $5::text[])
        AS given (id, event_id, endpoint_id, disabled, ordered_object)
ON CONFLICT (event_id, endpoint_id) DO NOTHING;
