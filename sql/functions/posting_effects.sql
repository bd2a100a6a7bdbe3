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
    finished integer;
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
        finished := inbox_finish(inbox_claim, inbox_ids, inbox_items, inbox_reasons, inbox_ends, outcomes);
    END IF;
    RETURN due;
END
$$;

-- Write the events that tell of items posted just now, with their marks and positions, where their fan-out is small;
-- return their ids, whose deliveries the caller makes in this transaction (`outbox_deliver`). Else nothing is written,
-- null comes back, and they are told as any others. The fan-out is small where each principal has few endpoints, of
-- which each is on and none wants order or batches; and where no event waits, from id `since` on: a later one would get
-- the lower position. The rows of positions stay locked until the commit. Where somebody else has one, or there is none
-- yet, the fan-out may wait for it: money does not.
CREATE OR REPLACE FUNCTION posting_tells_at_once(
    outcomes smallint[], event_items integer[], event_ids uuid[], event_principals integer[], event_types text[],
    event_objects text[], event_bodies bytea[], since uuid
) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    few CONSTANT integer := 4;
    is_large boolean;
    principals integer [];
    free integer;
    told uuid [];
BEGIN
    SELECT
        bool_or(NOT w.plain OR w.endpoints NOT BETWEEN 1 AND few)
        OR EXISTS (SELECT FROM outbox_events AS o WHERE o.fanned_out_at IS NULL AND o.id >= since),
        array_agg(e.principal_id)
    INTO is_large, principals
    FROM (
        SELECT DISTINCT e.principal_id FROM unnest(event_items, event_principals) AS e (item, principal_id)
        WHERE outcomes[e.item] = 0
    ) AS e
    CROSS JOIN LATERAL (
        SELECT count(*) AS endpoints, bool_and(p.plain) AS plain
        FROM (
            SELECT r.batch_size = 1 AND NOT r.ordered AND r.disabled_at IS NULL AS plain
            FROM webhook_endpoints AS r
            WHERE r.principal_id = e.principal_id AND r.deleted_at IS NULL
            LIMIT few + 1
        ) AS p
    ) AS w;
    IF is_large IS NOT FALSE THEN
        RETURN NULL;
    END IF;
    PERFORM FROM outbox_positions AS p WHERE p.principal_id = any(principals) FOR NO KEY UPDATE SKIP LOCKED;
    GET DIAGNOSTICS free = ROW_COUNT;
    IF free < cardinality(principals) THEN
        RETURN NULL;
    END IF;
    WITH posted AS MATERIALIZED (
        SELECT
            e.id, e.principal_id, e.event_type, e.object_id, e.body,
            row_number() OVER (PARTITION BY e.principal_id ORDER BY e.id) AS place,
            count(*) OVER (PARTITION BY e.principal_id) AS events
        FROM unnest(event_items, event_ids, event_principals, event_types, event_objects, event_bodies)
            AS e (item, id, principal_id, event_type, object_id, body)
        WHERE outcomes[e.item] = 0
    ),

    drawn AS (
        UPDATE outbox_positions AS p SET last_position = p.last_position + n.events
        FROM (SELECT g.principal_id, count(*) AS events FROM posted AS g GROUP BY g.principal_id) AS n
        WHERE p.principal_id = n.principal_id
        RETURNING p.principal_id, p.last_position
    ),

    written AS (
        INSERT INTO outbox_events AS o (id, principal_id, event_type, object_id, body, fanned_out_at, position)
        SELECT
            n.id, n.principal_id, n.event_type, n.object_id, n.body, clock_timestamp(),
            d.last_position - n.events + n.place
        FROM posted AS n INNER JOIN drawn AS d ON n.principal_id = d.principal_id
        RETURNING o.id
    )

    SELECT array_agg(w.id) INTO told FROM written AS w;
    RETURN told;
END
$$;

REVOKE EXECUTE ON FUNCTION posting_effects, posting_tells_at_once FROM public;
GRANT EXECUTE ON FUNCTION posting_effects, posting_tells_at_once TO tallystick_serving;
