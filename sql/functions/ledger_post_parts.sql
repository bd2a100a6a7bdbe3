-- The rare parts of ledger_post, each set-based. The serving role may call the two that only read.

-- One row an account, in order: its window limits and their use at `at_time`.
CREATE OR REPLACE FUNCTION ledger_window_usage(account_ids bigint[], at_time timestamptz)
RETURNS TABLE (
    ordinal bigint, hour_amount_max bigint, hour_count_max bigint, day_amount_max bigint, day_count_max bigint,
    hour_sum bigint, hour_uses bigint, day_sum bigint, day_uses bigint
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT
        wanted.ordinal, w.hour_amount_max, w.hour_count_max, w.day_amount_max, w.day_count_max,
        least(coalesce(h.amount, 0), 4611686018427387903)::bigint, coalesce(h.uses, 0)::bigint, coalesce(d.amount, 0), coalesce(d.uses, 0)
    FROM unnest(account_ids) WITH ORDINALITY AS wanted (id, ordinal)
    LEFT JOIN account_windows AS w ON wanted.id = w.account_id
    LEFT JOIN LATERAL (
        SELECT sum(u.amount) AS amount, sum(u.uses) AS uses FROM window_usage AS u
        WHERE u.account_id = w.account_id AND u.span = 'm'
            AND u.bucket > date_trunc('minute', at_time - interval '1 hour', 'UTC')
    ) AS h ON TRUE
    LEFT JOIN window_usage AS d
        ON w.account_id = d.account_id AND d.span = 'd' AND d.bucket = date_trunc('day', at_time, 'UTC')
$$;

-- The amount that each leg has moved once `part` of the leg `unit` is due, for a capture or reversal of less than all.
-- Legs on the side of that leg are rounded down. The other side is split leg by leg from the last: each takes its
-- share of the rest, rounded down, so that the first leg of that side takes the remainder. As `part` rises no leg ever
-- falls back: a destination is never debited, however a hold is cut into captures. The whole as `part` gives the legs.
CREATE OR REPLACE FUNCTION ledger_part(legs bigint[], part bigint, unit integer DEFAULT 1) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    whole CONSTANT numeric := abs(legs[unit]);
    due numeric := part; -- the rest, to be split over the other side's legs
    weight numeric := 0; -- the sum of those legs that are not served yet
    parts bigint [] := legs;
BEGIN
    parts[unit] := CASE WHEN legs[unit] > 0 THEN part ELSE -part END;
    FOR leg IN 1..cardinality(legs) LOOP
        CONTINUE WHEN leg = unit;
        IF (legs[leg] > 0) = (legs[unit] > 0) THEN
            parts[leg] := div(legs[leg]::numeric * part, whole);
            due := due + abs(parts[leg]);
        ELSE
            weight := weight + abs(legs[leg]);
        END IF;
    END LOOP;
    FOR leg IN REVERSE cardinality(legs)..1 LOOP
        IF (legs[leg] > 0) <> (legs[unit] > 0) THEN
            parts[leg] := div(legs[leg] * due, weight);
            due := due - abs(parts[leg]);
            weight := weight - abs(legs[leg]);
        END IF;
    END LOOP;
    RETURN parts;
END
$$;

-- The sums of the account's open holds whose time is over at `at_time`: what they keep of it, and what they will not
-- bring to it. The holds `targets` count as they stand in the caller's arrays.
CREATE OR REPLACE FUNCTION ledger_lapsed(
    wanted_id bigint, at_time timestamptz, targets bigint[], hold_state smallint[], hold_captured bigint[],
    hold_expires timestamptz[]
) RETURNS TABLE (held bigint, incoming bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT
        coalesce(sum(l.captured - l.amount) FILTER (WHERE l.place = 1), 0)::bigint,
        coalesce(sum(l.amount - l.captured) FILTER (WHERE l.place > 1), 0)::bigint
    FROM (
        SELECT
            h.leg_accounts, h.leg_amounts, coalesce(hold_captured[t.place], h.captured) AS captured,
            coalesce(hold_state[t.place], h.state) AS state,
            CASE WHEN t.place IS NULL THEN h.expires_at ELSE hold_expires[t.place] END AS expires_at
        FROM holds AS h
        CROSS JOIN LATERAL (SELECT array_position(targets, h.no) AS place) AS t
        WHERE h.state = 0 AND (h.expires_at <= at_time OR h.no = ANY (targets)) AND wanted_id = ANY (h.leg_accounts)
    ) AS h
    CROSS JOIN LATERAL unnest(h.leg_accounts, h.leg_amounts, ledger_part(h.leg_amounts, h.captured)) WITH ORDINALITY
        AS l (account_id, amount, captured, place)
    WHERE h.state = 0 AND h.expires_at <= at_time AND l.account_id = wanted_id
$$;

-- The rows of holds, their events, and the amounts that reversals have used up.
CREATE OR REPLACE FUNCTION ledger_write_holds(
    batch bigint, ids uuid[], operations smallint[], outcomes smallint[], principals integer[], kinds text[],
    leg_first integer[], leg_last integer[], account_ids bigint[], leg_account integer[], leg_amount bigint[],
    targets bigint[], item_target integer[], reference_texts text[], metadata_texts text[],
    expiry_times timestamptz[], item_amount bigint[], item_captured bigint[], item_expires timestamptz[],
    hold_captured bigint[], hold_state smallint[], hold_expires timestamptz[], hold_revision integer[],
    reversed bigint[], reversed_leg smallint[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO holds (
        no, id, source_id, amount, expires_at, principal_id, kind, reference, metadata, leg_accounts, leg_amounts
    )
    SELECT
        item_no(batch, h.item), h.id, account_ids[leg_account[h.first_leg]], h.amount, h.expires_at, h.principal,
        h.kind, h.reference, h.metadata::jsonb,
        ARRAY(
            SELECT account_ids[leg_account[l.leg]] FROM generate_series(h.first_leg, h.last_leg) AS l (leg)
            ORDER BY l.leg
        ),
        leg_amount[h.first_leg:h.last_leg]
    FROM unnest(
        ids, outcomes, operations, leg_first, leg_last, item_amount, expiry_times, principals, kinds, reference_texts, metadata_texts
    ) WITH ORDINALITY AS h (
        id, outcome, operation, first_leg, last_leg, amount, expires_at, principal, kind, reference, metadata, item
    )
    WHERE h.outcome = 0 AND h.operation = 1;

    INSERT INTO hold_events (no, id, hold, operation, amount, captured, expires_at)
    SELECT
        item_no(batch, e.item), e.id,
        CASE WHEN e.operation = 1 THEN item_no(batch, e.item) ELSE targets[e.target] END,
        e.operation, e.amount, coalesce(e.captured, 0),
        CASE WHEN e.operation = 1 THEN e.asked_expiry ELSE e.expires_at END
    FROM unnest(ids, outcomes, operations, item_target, item_amount, item_captured, item_expires, expiry_times)
        WITH ORDINALITY AS e (id, outcome, operation, target, amount, captured, expires_at, asked_expiry, item)
    WHERE e.outcome = 0 AND e.operation BETWEEN 1 AND 5;

    UPDATE holds AS h SET captured = t.captured, state = t.state, expires_at = t.expires_at, revision = t.revision
    FROM unnest(targets, hold_captured, hold_state, hold_expires, hold_revision)
        AS t (no, captured, state, expires_at, revision)
    WHERE h.no = t.no AND h.revision <> t.revision;

    INSERT INTO reversed_amounts AS r (no, amount, leg)
    SELECT t.no, t.amount, t.leg FROM unnest(targets, reversed, reversed_leg) AS t (no, amount, leg)
    WHERE t.amount > 0
    ON CONFLICT ON CONSTRAINT reversed_amounts_pkey DO UPDATE SET amount = excluded.amount
    WHERE r.amount <> excluded.amount;
END
$$;

REVOKE EXECUTE ON FUNCTION ledger_window_usage, ledger_part, ledger_lapsed, ledger_write_holds FROM public;
GRANT EXECUTE ON FUNCTION ledger_window_usage, ledger_part TO tallystick_serving;
