-- The deliveries of the events `taken`, which this transaction has locked or written. A delivery for which the sender
-- of `worker` has room is born leased to it, under `token`, and comes back with all that its request needs. `known`
-- endpoints have `rooms` (more or less than `default_room`) and are `swift` or not; at most `free` deliveries are
-- handed over, `free_of_others` to endpoints that are not swift, and beyond `free_of_many` only the `firsts` of each
-- endpoint. Everything else is born as it would be without a sender.
--
-- The first row tells of the whole: how many deliveries are `due` for a claim, and the turns (endpoints and objects) to
-- be released after the commit. Each further row is a delivery that is handed over.
CREATE OR REPLACE FUNCTION outbox_deliver(
    taken uuid[], worker uuid, token uuid, lease_seconds double precision,
    known uuid[], rooms integer[], firsts integer[], swift boolean[], default_room integer,
    free integer, free_of_many integer, free_of_others integer
) RETURNS TABLE (
    due integer, turn_endpoints uuid[], turn_objects text[],
    id uuid, event_id uuid, endpoint_id uuid, ordered_object text, attempts integer, event_type text, body bytea,
    url text, headers text, disabled boolean, failing boolean, secrets text[], signing_keys text[]
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    millisecond bigint := extract(EPOCH FROM clock_timestamp()) * 1000;
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT
            told.id, told.principal_id, told.event_type, told.object_id, told.created_at, told.body,
            row_number() OVER (ORDER BY told.id) AS place
        FROM outbox_events AS told WHERE told.id = any(taken)
    ),

    wanted AS (
        SELECT
            given.id AS event_id, given.place, endpoint.id AS endpoint_id,
            endpoint.disabled_at IS NOT NULL AS disabled,
            CASE WHEN endpoint.ordered THEN given.object_id END AS ordered_object,
            endpoint.batch_size = 1 AND NOT endpoint.ordered AND endpoint.disabled_at IS NULL AS plain
        FROM given
        INNER JOIN webhook_endpoints AS endpoint
            ON
                given.principal_id = endpoint.principal_id
                AND endpoint.deleted_at IS NULL
                -- Ids have the time of the API's clocks. An event is after the endpoint if either clock says so: a
                -- database whose clock is moved back must not hide events from it.
                AND (given.created_at >= endpoint.created_at OR given.id >= endpoint.id)
                AND (
                    endpoint.event_types = '{}'
                    OR given.event_type = any(endpoint.event_types)
                    OR EXISTS (
                        SELECT 1 FROM unnest(endpoint.event_types) AS pattern (text)
                        WHERE right(pattern.text, 1) = '*' AND starts_with(given.event_type, left(pattern.text, -1))
                    )
                )
    ),

    ranked AS (
        SELECT
            wanted.event_id, wanted.place, wanted.endpoint_id, wanted.disabled, wanted.ordered_object,
            coalesce(receiver.swift, FALSE) AS swift,
            row_number() OVER (ORDER BY wanted.place, wanted.endpoint_id) - 1 AS number,
            wanted.plain AND row_number() OVER of_endpoint <= coalesce(receiver.room, default_room) AS able,
            row_number() OVER of_endpoint <= coalesce(receiver.first, default_room) AS first
        FROM wanted
        LEFT JOIN unnest(known, rooms, firsts, swift) AS receiver (id, room, first, swift)
            ON wanted.endpoint_id = receiver.id
        WINDOW of_endpoint AS (PARTITION BY wanted.endpoint_id ORDER BY wanted.place)
    ),

    born AS (
        SELECT
            -- A UUIDv7: the time in milliseconds, then the number within this call, then 62 random bits.
            overlay(
                gen_random_uuid()::text PLACING
                overlay(
                    lpad(to_hex(millisecond + ranked.number / 4096), 12, '0') PLACING '-' FROM 9 FOR 0
                ) || '-7' || lpad(to_hex(ranked.number % 4096), 3, '0')
                FROM 1 FOR 18
            )::uuid AS id,
            ranked.event_id, ranked.endpoint_id, ranked.disabled, ranked.ordered_object,
            ranked.able
            AND count(*) FILTER (WHERE ranked.able) OVER in_turn
            <= CASE WHEN ranked.first THEN free ELSE free_of_many END
            AND (ranked.swift OR count(*) FILTER (WHERE ranked.able AND NOT ranked.swift) OVER in_turn <= free_of_others)
                AS handed_over
        FROM ranked
        WINDOW in_turn AS (ORDER BY ranked.number)
    ),

    made AS (
        INSERT INTO webhook_deliveries AS delivery (
            id, event_id, endpoint_id, ordered_object, state, attempts, last_error, finished_at,
            lease_worker, lease_token, lease_until
        )
        SELECT
            born.id, born.event_id, born.endpoint_id, born.ordered_object,
            CASE
                WHEN born.handed_over THEN 'leased'
                WHEN born.disabled THEN 'failed'
                WHEN born.ordered_object IS NULL THEN 'pending'
                ELSE 'waiting'
            END,
            born.handed_over::integer,
            CASE WHEN born.disabled THEN 'endpoint_disabled' END,
            CASE WHEN born.disabled THEN clock_timestamp() END,
            CASE WHEN born.handed_over THEN worker END,
            CASE WHEN born.handed_over THEN token END,
            CASE WHEN born.handed_over THEN clock_timestamp() + make_interval(secs => lease_seconds) END
        FROM born
        ORDER BY born.id
        ON CONFLICT (event_id, endpoint_id) DO NOTHING
        RETURNING delivery.id, delivery.event_id, delivery.endpoint_id, delivery.ordered_object, delivery.state
    )

    SELECT
        count(*) FILTER (WHERE made.state = 'pending')::integer,
        array_agg(made.endpoint_id) FILTER (WHERE made.ordered_object IS NOT NULL),
        array_agg(made.ordered_object) FILTER (WHERE made.ordered_object IS NOT NULL),
        NULL::uuid, NULL::uuid, NULL::uuid, NULL::text, NULL::integer, NULL::text, NULL::bytea,
        NULL::text, NULL::text, NULL::boolean, NULL::boolean, NULL::text[], NULL::text[]
    FROM made
    UNION ALL
    SELECT
        NULL, NULL, NULL,
        made.id, made.event_id, made.endpoint_id, made.ordered_object, 1, given.event_type, given.body,
        endpoint.url, endpoint.headers::text, FALSE, endpoint.failing_since IS NOT NULL,
        CASE WHEN endpoint.old_secrets_until <= now() THEN endpoint.secrets[1:1] ELSE endpoint.secrets END,
        CASE WHEN endpoint.old_secrets_until <= now() THEN endpoint.signing_keys[1:1] ELSE endpoint.signing_keys END
    FROM made
    INNER JOIN given ON made.event_id = given.id
    INNER JOIN webhook_endpoints AS endpoint ON made.endpoint_id = endpoint.id
    WHERE made.state = 'leased';
END
$$;

-- The fan-out of up to `most` events, from id `since` on: their deliveries, their positions and their marks, in one
-- call, so that the rows of positions are locked for no round trip. The rows are those of `outbox_deliver`, behind how
-- many `events` there were and the `last` of them; none where there was no event.
CREATE OR REPLACE FUNCTION outbox_fan_out(
    most integer, since uuid, worker uuid, token uuid, lease_seconds double precision,
    known uuid[], rooms integer[], firsts integer[], swift boolean[], default_room integer,
    free integer, free_of_many integer, free_of_others integer
) RETURNS TABLE (
    events integer, last uuid, due integer, turn_endpoints uuid[], turn_objects text[],
    id uuid, event_id uuid, endpoint_id uuid, ordered_object text, attempts integer, event_type text, body bytea,
    url text, headers text, disabled boolean, failing boolean, secrets text[], signing_keys text[]
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    taken uuid[];
    principals integer[];
BEGIN
    SELECT array_agg(told.id), array_agg(told.principal_id) INTO taken, principals
    FROM (
        SELECT event.id, event.principal_id FROM outbox_events AS event
        WHERE event.fanned_out_at IS NULL AND event.id >= since
        ORDER BY event.id
        LIMIT most
        FOR UPDATE SKIP LOCKED
    ) AS told;
    IF taken IS NULL THEN
        RETURN;
    END IF;

    RETURN QUERY
    SELECT cardinality(taken), taken[cardinality(taken)], made.*
    FROM outbox_deliver(
        taken, worker, token, lease_seconds, known, rooms, firsts, swift, default_room, free, free_of_many,
        free_of_others
    ) AS made;

    -- Each event gets the next position of its principal, whose row stays locked until the commit: the mark comes last,
    -- since other steps with events of the same principals wait from then on. Principals are locked in their order, so
    -- that two such steps never wait for each other in a circle.
    WITH given AS MATERIALIZED (
        SELECT
            told.id, told.principal_id,
            row_number() OVER (PARTITION BY told.principal_id ORDER BY told.id) AS place,
            count(*) OVER (PARTITION BY told.principal_id) AS events
        FROM unnest(taken, principals) AS told (id, principal_id)
    ),

    drawn AS (
        INSERT INTO outbox_positions AS position (principal_id, last_position)
        SELECT given.principal_id, count(*) AS last_position FROM given
        GROUP BY given.principal_id
        ORDER BY given.principal_id
        ON CONFLICT (principal_id) DO UPDATE SET last_position = position.last_position + excluded.last_position
        RETURNING position.principal_id, position.last_position
    )

    UPDATE outbox_events AS told
    SET fanned_out_at = clock_timestamp(), position = drawn.last_position - given.events + given.place
    FROM given
    INNER JOIN drawn ON given.principal_id = drawn.principal_id
    WHERE told.id = given.id;
END
$$;

REVOKE EXECUTE ON FUNCTION outbox_deliver, outbox_fan_out FROM public;
GRANT EXECUTE ON FUNCTION outbox_deliver, outbox_fan_out TO tallystick_serving;
