-- Remove up to `most` events with ids below `before` that were finished more than `days` days ago, the oldest first,
-- with their bodies, failures and actions; return how many. The serving role can otherwise only add. Dead letters
-- stay until a person has dealt with them, and an event stays for a week in any case: providers repeat for days.
CREATE OR REPLACE FUNCTION inbox_prune(days integer, before uuid, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    old uuid [];
BEGIN
    IF days < 7 THEN
        RAISE EXCEPTION 'events are kept for a week at least' USING ERRCODE = 'check_violation';
    END IF;
    -- Ids are made in the order of arrival, so the oldest are at the beginning of the primary key.
    SELECT array_agg(e.id) INTO old
    FROM (
        SELECT i.id FROM inbox_events AS i
        WHERE
            i.id < before AND i.state = 'done'
            AND i.finished_at < clock_timestamp() - make_interval(days => days)
        ORDER BY i.id
        LIMIT most
        FOR UPDATE SKIP LOCKED
    ) AS e;
    IF old IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM inbox_failures AS f WHERE f.inbox_id = ANY (old);
    DELETE FROM inbox_actions AS a WHERE a.inbox_id = ANY (old);
    DELETE FROM inbox_bodies AS b WHERE b.id = ANY (old);
    DELETE FROM inbox_events AS e WHERE e.id = ANY (old);
    RETURN cardinality(old);
END
$$;

REVOKE EXECUTE ON FUNCTION inbox_prune FROM public;
GRANT EXECUTE ON FUNCTION inbox_prune TO tallystick_serving;
