-- The effects of a posting, in its transaction: the payables that it pays, the events that tell of it, the audit, and
-- the events of a claim that it finishes (sql/functions/inbox_claims.sql). This runs after ledger_post, whose
-- `outcomes` decide: effects are written for items posted just now (0), so a repetition of an earlier call tells
-- nothing twice. Items are numbered from 1; returns how many events are to be fanned out.
CREATE OR REPLACE FUNCTION posting_effects(
    ids uuid[], outcomes smallint[], payable_ids uuid[], item_payable integer[], settlers uuid[],
    event_items integer[], event_ids uuid[], event_principals integer[], event_types text[], event_objects text[],
    event_bodies bytea[],
    audit_items integer[], audit_ids uuid[], audit_types text[], audit_actors text[], audit_users uuid[],
    audit_objects text[], audit_data text[], inbox_claim uuid DEFAULT NULL, inbox_ids uuid[] DEFAULT NULL,
    inbox_items integer[] DEFAULT NULL, inbox_reasons text[] DEFAULT NULL, inbox_ends boolean DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    due integer := 0;
BEGIN
    IF payable_ids IS NOT NULL THEN
        UPDATE payables AS p
        SET state = 'paid', transfer_id = paid.transfer_id, settled_by = paid.settler, updated_at = clock_timestamp()
        FROM (
            SELECT payable_ids[item.payable] AS payable_id, item.transfer_id, item.settler
            FROM unnest(ids, outcomes, item_payable, settlers) AS item (transfer_id, outcome, payable, settler)
            WHERE item.outcome = 0 AND item.payable > 0
        ) AS paid
        WHERE p.id = paid.payable_id AND NOT p.reusable;
    END IF;
    IF event_items IS NOT NULL THEN
        -- An event counts as fanned out where nobody could receive it, by an endpoint or by reading with a key: most
        -- merchants have neither, and a fan-out costs as much as the payment's own entries.
        WITH written AS (
            INSERT INTO outbox_events (id, principal_id, event_type, object_id, body, fanned_out_at)
            SELECT
                e.id, e.principal_id, e.event_type, e.object_id, e.body,
                CASE WHEN NOT EXISTS (
                    SELECT FROM webhook_endpoints AS w WHERE w.principal_id = e.principal_id AND w.deleted_at IS NULL
                ) AND NOT EXISTS (
                    SELECT FROM api_keys AS k WHERE k.principal_id = e.principal_id
                ) THEN clock_timestamp() END
            FROM unnest(event_items, event_ids, event_principals, event_types, event_objects, event_bodies)
                AS e (item, id, principal_id, event_type, object_id, body)
            WHERE outcomes[e.item] = 0
            RETURNING fanned_out_at
        )

        SELECT count(*) INTO due FROM written WHERE fanned_out_at IS NULL;
    END IF;
    IF audit_items IS NOT NULL THEN
        INSERT INTO audit_events (id, type, actor, user_id, object_id, data)
        SELECT a.id, a.type, a.actor, a.user_id, a.object_id, a.data::jsonb
        FROM unnest(audit_items, audit_ids, audit_types, audit_actors, audit_users, audit_objects, audit_data)
            AS a (item, id, type, actor, user_id, object_id, data)
        WHERE outcomes[a.item] = 0;
    END IF;
    IF inbox_claim IS NOT NULL THEN
        PERFORM inbox_finish(inbox_claim, inbox_ids, inbox_items, inbox_reasons, inbox_ends, outcomes);
    END IF;
    RETURN due;
END
$$;

REVOKE EXECUTE ON FUNCTION posting_effects FROM public;
GRANT EXECUTE ON FUNCTION posting_effects TO tallystick_serving;
