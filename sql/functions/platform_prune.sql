-- Remove up to `most` audit records that are older than `days` days, oldest first, of those that stand in no
-- partition of their own time; return how many. The serving role can otherwise only add to the audit, and records
-- younger than 30 days are kept in any case.
CREATE OR REPLACE FUNCTION prune_audit_events(days integer, most integer) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$ SELECT partition_prune('audit_events', days, most) $$;

REVOKE EXECUTE ON FUNCTION prune_audit_events FROM public;
GRANT EXECUTE ON FUNCTION prune_audit_events TO tallystick_serving;
