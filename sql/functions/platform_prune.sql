-- Remove up to `most` audit records that are older than `days` days, oldest first; return how many. The serving role
-- can otherwise only add to the audit, and records younger than 30 days are kept in any case.
CREATE OR REPLACE FUNCTION prune_audit_events(days integer, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    IF days < 30 THEN
        RAISE EXCEPTION 'the audit is kept for 30 days at least' USING ERRCODE = 'check_violation';
    END IF;
    -- Ids are made in the order of time, so the oldest are at the beginning of the primary key.
    DELETE FROM audit_events AS a
    USING (
        SELECT e.id, e.created_at FROM audit_events AS e ORDER BY e.id LIMIT most FOR UPDATE SKIP LOCKED
    ) AS oldest
    WHERE a.id = oldest.id AND oldest.created_at < clock_timestamp() - make_interval(days => days);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

REVOKE EXECUTE ON FUNCTION prune_audit_events FROM public;
GRANT EXECUTE ON FUNCTION prune_audit_events TO tallystick_serving;
