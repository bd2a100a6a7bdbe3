-- Partitions by time (docs/retention.md). The serving role can make the next one, detach one whose rows are all old,
-- note that it is archived, and drop it then; it can touch no row. Each call does one thing in one short transaction.
--
-- A new partition is made beside the table and attached, which holds up neither readers nor writers while its time
-- lies ahead. A partition that is detached needs the table for itself for a moment: a call gives up after 200 ms, so
-- that no payment waits longer behind it, and is repeated. (DETACH ... CONCURRENTLY holds nobody up, but is not to be
-- had beside a default one.)

-- The tables that have partitions: the key, whether that is an id and no time, the column of the rows' own time, the
-- columns that give rows their order, and the days that nothing can take from them.
CREATE OR REPLACE FUNCTION partition_rules()
RETURNS TABLE (parent text, key text, by_id boolean, own_time text, ordered_by text[], least_days integer)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
VALUES
    ('audit_events', 'id', TRUE, 'created_at', '{id}'::text [], 30),
    ('webhook_attempts', 'at', FALSE, 'at', '{delivery_id,at}'::text [], 1)
$$;

-- The value of a key at a moment: the time itself, or the least id of that time (RFC 9562, version 7).
CREATE OR REPLACE FUNCTION partition_bound(by_id boolean, moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
SELECT CASE
    WHEN by_id
        THEN (lpad(to_hex(floor(extract(EPOCH FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid::text
    ELSE moment::text
END
$$;

-- Make the partition of `given_parent` behind its last one, for the next `span` (day, month), unless the last one ends
-- more than `ahead` from now. Returns its name; null: there are enough. Rows that had nowhere else to go move into it.
CREATE OR REPLACE FUNCTION partition_make(given_parent text, span text, ahead interval) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '200ms'
AS $$
DECLARE
    rule record;
    last_at timestamptz;
    next_at timestamptz;
    made text;
    span_bounds text;
BEGIN
    IF span NOT IN ('day', 'month') OR ahead > interval '100 days' THEN
        RAISE EXCEPTION 'partitions are days or months, made 100 days ahead at most' USING ERRCODE = 'check_violation';
    END IF;
    SELECT r.* INTO STRICT rule FROM partition_rules() AS r WHERE r.parent = given_parent;
    -- One process makes it, and the others see it afterwards.
    LOCK TABLE public.partitions IN SHARE ROW EXCLUSIVE MODE;
    SELECT max(p.to_at) INTO STRICT last_at FROM public.partitions AS p WHERE p.parent = rule.parent;
    IF last_at > clock_timestamp() + ahead THEN
        RETURN NULL;
    END IF;
    next_at := date_trunc(span, last_at) + ('1 ' || span)::interval;
    made := rule.parent || to_char(last_at, '_YYYYMMDD');
    span_bounds := format(
        '%1$I >= %2$L AND %1$I < %3$L',
        rule.key, partition_bound(rule.by_id, last_at), partition_bound(rule.by_id, next_at)
    );
    EXECUTE format(
        'CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        made, rule.parent
    );
    -- A row on its way to the rest is refused there once its time has a partition. Where rows of that time may come by
    -- now, no writer may be between its look at the partitions and its row.
    IF last_at < clock_timestamp() + interval '1 day' THEN
        EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', rule.parent);
    END IF;
    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', rule.parent || '_rest');
    EXECUTE format(
        'WITH moved AS (DELETE FROM public.%I WHERE %s RETURNING *) INSERT INTO public.%I SELECT * FROM moved',
        rule.parent || '_rest', span_bounds, made
    );
    EXECUTE format(
        'ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        rule.parent, made, partition_bound(rule.by_id, last_at), partition_bound(rule.by_id, next_at)
    );
    INSERT INTO public.partitions (name, parent, from_at, to_at) VALUES (made, rule.parent, last_at, next_at);
    RETURN made;
END
$$;

-- Detach the oldest partition of `given_parent` of which all rows are older than `days` days; return its name, null if
-- there is none. It can be read until it is dropped, and not be written. The hour allows for clocks that disagree.
CREATE OR REPLACE FUNCTION partition_detach(given_parent text, days integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '200ms'
AS $$
DECLARE
    rule record;
    old text;
BEGIN
    SELECT r.* INTO STRICT rule FROM partition_rules() AS r WHERE r.parent = given_parent;
    IF days < rule.least_days THEN
        RAISE EXCEPTION '% keeps its rows for % days at least', rule.parent, rule.least_days
            USING ERRCODE = 'check_violation';
    END IF;
    LOCK TABLE public.partitions IN SHARE ROW EXCLUSIVE MODE;
    SELECT p.name INTO old FROM public.partitions AS p
    WHERE
        p.parent = rule.parent AND p.detached_at IS NULL AND p.restored_at IS NULL
        AND p.to_at < clock_timestamp() - make_interval(days => days, hours => 1)
    ORDER BY p.to_at
    LIMIT 1;
    IF old IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', rule.parent, old);
    EXECUTE format('REVOKE ALL ON public.%I FROM tallystick_serving', old);
    EXECUTE format('GRANT SELECT ON public.%I TO tallystick_serving', old);
    UPDATE public.partitions AS p SET detached_at = clock_timestamp() WHERE p.name = old;
    RETURN old;
END
$$;

-- Up to `most` rows of a detached partition behind the place `behind` (null: from its beginning), in its order, as
-- JSON and with the place of each.
CREATE OR REPLACE FUNCTION partition_lines(given_name text, behind text[], most integer)
RETURNS TABLE (line text, place text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET timezone = 'UTC'
AS $$
DECLARE
    ordered_by text[];
BEGIN
    SELECT r.ordered_by INTO STRICT ordered_by
    FROM public.partitions AS p INNER JOIN partition_rules() AS r ON p.parent = r.parent
    WHERE p.name = given_name AND p.detached_at IS NOT NULL AND p.dropped_at IS NULL;
    RETURN QUERY EXECUTE format(
        'SELECT row_to_json(r)::text, ARRAY[%1$s] FROM public.%2$I AS r WHERE %3$s ORDER BY %4$s LIMIT %5$s',
        (SELECT string_agg(format('r.%I::text', c.name), ', ' ORDER BY c.no)
            FROM unnest(ordered_by) WITH ORDINALITY AS c (name, no)),
        given_name,
        CASE WHEN behind IS NULL THEN 'TRUE' ELSE (
            SELECT format('(%s) > (%s)', string_agg(format('r.%I', c.name), ', ' ORDER BY c.no),
                string_agg(quote_literal(c.value), ', ' ORDER BY c.no))
            FROM unnest(ordered_by, behind) WITH ORDINALITY AS c (name, value, no)
        ) END,
        (SELECT string_agg(format('r.%I', c.name), ', ' ORDER BY c.no)
            FROM unnest(ordered_by) WITH ORDINALITY AS c (name, no)),
        most
    );
END
$$;

-- Note that a detached partition lies in the archive, whole: its rows are counted here, once more. Returns whether
-- that was noted; it is not if the partition is gone.
CREATE OR REPLACE FUNCTION partition_archived(
    given_name text, given_rows bigint, given_sha256 text, given_location text
)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    counted bigint;
BEGIN
    PERFORM FROM public.partitions AS p
    WHERE p.name = given_name AND p.detached_at IS NOT NULL AND p.dropped_at IS NULL AND p.restored_at IS NULL
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    EXECUTE format('SELECT count(*) FROM public.%I', given_name) INTO counted;
    IF counted IS DISTINCT FROM given_rows THEN
        RAISE EXCEPTION '% has % rows, and % were archived', given_name, counted, given_rows
            USING ERRCODE = 'check_violation';
    END IF;
    UPDATE public.partitions AS p
    SET archived_at = clock_timestamp(), row_count = counted, sha256 = given_sha256, location = given_location
    WHERE p.name = given_name;
    RETURN TRUE;
END
$$;

-- Drop a detached partition that lies in the archive, or any if nothing is archived here. Returns whether it was
-- there.
CREATE OR REPLACE FUNCTION partition_drop(given_name text, unarchived boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '2s'
AS $$
BEGIN
    UPDATE public.partitions AS p SET dropped_at = clock_timestamp()
    WHERE
        p.name = given_name AND p.detached_at IS NOT NULL AND p.dropped_at IS NULL AND p.restored_at IS NULL
        AND (p.archived_at IS NOT NULL OR unarchived);
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    EXECUTE format('DROP TABLE public.%I', given_name);
    RETURN TRUE;
END
$$;

-- Remove up to `most` rows that are older than `days` days from the partitions without a beginning, which hold rows of
-- very different ages: the first one, and the rest. Returns how many. All others go as a whole.
CREATE OR REPLACE FUNCTION partition_prune(given_parent text, days integer, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET timezone = 'UTC'
AS $$
DECLARE
    rule record;
    part text;
    before timestamptz := clock_timestamp() - make_interval(days => days);
    gone integer;
    removed integer := 0;
BEGIN
    SELECT r.* INTO STRICT rule FROM partition_rules() AS r WHERE r.parent = given_parent;
    IF days < rule.least_days THEN
        RAISE EXCEPTION '% keeps its rows for % days at least', rule.parent, rule.least_days
            USING ERRCODE = 'check_violation';
    END IF;
    FOR part IN
        SELECT p.name FROM public.partitions AS p
        WHERE p.parent = rule.parent AND p.from_at IS NULL AND p.detached_at IS NULL AND p.restored_at IS NULL
    LOOP
        EXECUTE format(
            'DELETE FROM public.%1$I AS o WHERE o.ctid = ANY (ARRAY('
            'SELECT r.ctid FROM public.%1$I AS r WHERE r.%2$I < %3$L AND r.%4$I < %5$L ORDER BY r.%2$I LIMIT %6$s '
            'FOR UPDATE SKIP LOCKED))',
            part, rule.key, partition_bound(rule.by_id, before + CASE WHEN rule.by_id THEN interval '1 hour' ELSE '0' END),
            rule.own_time, before, most - removed
        );
        GET DIAGNOSTICS gone = ROW_COUNT;
        removed := removed + gone;
    END LOOP;
    RETURN removed;
END
$$;

-- One row for each table that has partitions: for how many seconds the last one lasts, the rows that have no
-- partition of their own (counted up to 1,000), and the partitions that are detached and not dropped.
CREATE OR REPLACE FUNCTION partition_state()
RETURNS TABLE (parent text, ahead_seconds double precision, stray_rows bigint, detached bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    rule record;
BEGIN
    FOR rule IN SELECT r.* FROM partition_rules() AS r ORDER BY r.parent LOOP
        parent := rule.parent;
        SELECT
            extract(EPOCH FROM max(p.to_at) - clock_timestamp()),
            count(*) FILTER (WHERE p.detached_at IS NOT NULL AND p.dropped_at IS NULL)
        INTO ahead_seconds, detached
        FROM public.partitions AS p
        WHERE p.parent = rule.parent;
        EXECUTE format('SELECT count(*) FROM (SELECT FROM public.%I LIMIT 1000) AS r', rule.parent || '_rest')
        INTO stray_rows;
        RETURN NEXT;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION partition_rules FROM public;
REVOKE EXECUTE ON FUNCTION partition_bound FROM public;
REVOKE EXECUTE ON FUNCTION partition_make FROM public;
REVOKE EXECUTE ON FUNCTION partition_detach FROM public;
REVOKE EXECUTE ON FUNCTION partition_lines FROM public;
REVOKE EXECUTE ON FUNCTION partition_archived FROM public;
REVOKE EXECUTE ON FUNCTION partition_drop FROM public;
REVOKE EXECUTE ON FUNCTION partition_prune FROM public;
REVOKE EXECUTE ON FUNCTION partition_state FROM public;
GRANT EXECUTE ON FUNCTION partition_make TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_detach TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_lines TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_archived TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_drop TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_prune TO tallystick_serving;
GRANT EXECUTE ON FUNCTION partition_state TO tallystick_serving;
