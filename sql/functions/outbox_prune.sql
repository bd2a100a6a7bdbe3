-- Remove old deliveries: of the `most` next ones behind id `after`, those that were done more than `days` days ago.
-- Ids are made in the order of time, so the oldest stand at the beginning of the primary key, and a caller goes on
-- behind the `last` one that was looked at; null: there are no others that could be old. The serving role cannot
-- otherwise remove a delivery, and none that was done within a day. Their attempts go with them where they would be
-- kept for longer (`with_attempts`); all others go with the partition of their day, which costs nothing for each.
CREATE OR REPLACE FUNCTION outbox_prune_done(
    days integer, after uuid, before uuid, most integer, with_attempts boolean
)
RETURNS TABLE (removed integer, last uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    looked uuid[];
    gone uuid[];
    first_at timestamptz;
    last_at timestamptz;
BEGIN
    IF days < 1 THEN
        RAISE EXCEPTION 'deliveries are kept for a day at least' USING ERRCODE = 'check_violation';
    END IF;
    looked := array(
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE delivery.id > after AND delivery.id < before
        ORDER BY delivery.id
        LIMIT most
    );
    WITH old AS (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE
            delivery.id = any(looked) AND delivery.state IN ('delivered', 'failed')
            AND delivery.finished_at < clock_timestamp() - make_interval(days => days)
        FOR UPDATE SKIP LOCKED
    ),

    deleted AS (
        DELETE FROM webhook_deliveries AS delivery
        WHERE delivery.id = any(array(SELECT old.id FROM old))
        RETURNING
            delivery.id, delivery.state, delivery.attempts, delivery.last_status, delivery.last_error,
            delivery.created_at, delivery.finished_at
    ),

    -- A callback is remembered as long as its object.
    kept AS (
        UPDATE callbacks AS callback
        SET
            state = deleted.state, attempts = deleted.attempts, last_status = deleted.last_status,
            last_error = deleted.last_error, finished_at = deleted.finished_at
        FROM deleted
        WHERE callback.delivery_id = deleted.id
    )

    SELECT array_agg(deleted.id), min(deleted.created_at), max(deleted.finished_at) INTO gone, first_at, last_at
    FROM deleted;
    -- The times name the partitions; the hour is for the clock of the sender.
    IF with_attempts AND gone IS NOT NULL THEN
        DELETE FROM webhook_attempts AS attempt
        WHERE
            attempt.delivery_id = any(gone)
            AND attempt.at BETWEEN first_at - interval '1 hour' AND last_at + interval '1 hour';
    END IF;
    RETURN QUERY
    SELECT coalesce(cardinality(gone), 0), CASE WHEN cardinality(looked) = most THEN looked[most] END;
END
$$;

-- The same as the version before calls it, and with the attempts of each delivery.
CREATE OR REPLACE FUNCTION outbox_prune_deliveries(days integer, after uuid, before uuid, most integer)
RETURNS TABLE (removed integer, last uuid)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT pruned.removed, pruned.last FROM outbox_prune_done(days, after, before, most, TRUE) AS pruned $$;

-- Remove old events in the same way, with their bodies: those that were fanned out, have no delivery any more, and are
-- older than `days` days. The first position of each principal moves on in the same transaction; rows of positions are
-- locked in the order of the principals, as a fan-out does, and last.
CREATE OR REPLACE FUNCTION outbox_prune_events(days integer, after uuid, before uuid, most integer)
RETURNS TABLE (removed integer, last uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    looked uuid[];
    principals integer[];
    positions bigint[];
BEGIN
    IF days < 1 THEN
        RAISE EXCEPTION 'events are kept for a day at least' USING ERRCODE = 'check_violation';
    END IF;
    looked := array(
        SELECT event.id FROM outbox_events AS event
        WHERE event.id > after AND event.id < before
        ORDER BY event.id
        LIMIT most
    );
    WITH old AS (
        SELECT event.id FROM outbox_events AS event
        WHERE
            event.id = any(looked) AND event.fanned_out_at IS NOT NULL
            AND event.created_at < clock_timestamp() - make_interval(days => days)
            AND NOT EXISTS (SELECT FROM webhook_deliveries AS delivery WHERE delivery.event_id = event.id)
        FOR UPDATE SKIP LOCKED
    ),

    deleted AS (
        DELETE FROM outbox_events AS event
        WHERE event.id = any(array(SELECT old.id FROM old))
        RETURNING event.principal_id, event.position
    )

    SELECT array_agg(deleted.principal_id), array_agg(coalesce(deleted.position, 0)) INTO principals, positions
    FROM deleted;
    PERFORM FROM outbox_positions AS known
    WHERE known.principal_id = any(principals)
    ORDER BY known.principal_id
    FOR NO KEY UPDATE;
    UPDATE outbox_positions AS known
    SET first_position = greatest(known.first_position, gone.position + 1)
    FROM (
        SELECT event.principal_id, max(event.position) AS position
        FROM unnest(principals, positions) AS event (principal_id, position)
        GROUP BY event.principal_id
    ) AS gone
    WHERE known.principal_id = gone.principal_id AND gone.position >= known.first_position;
    RETURN QUERY
    SELECT coalesce(cardinality(principals), 0), CASE WHEN cardinality(looked) = most THEN looked[most] END;
END
$$;

REVOKE EXECUTE ON FUNCTION outbox_prune_done FROM public;
REVOKE EXECUTE ON FUNCTION outbox_prune_deliveries FROM public;
REVOKE EXECUTE ON FUNCTION outbox_prune_events FROM public;
GRANT EXECUTE ON FUNCTION outbox_prune_done TO tallystick_serving;
GRANT EXECUTE ON FUNCTION outbox_prune_deliveries TO tallystick_serving;
GRANT EXECUTE ON FUNCTION outbox_prune_events TO tallystick_serving;
