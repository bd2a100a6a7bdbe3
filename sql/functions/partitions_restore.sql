-- Partitions that a person brings back from the archive (docs/retention.md). The serving role may call none of these.

-- Make a partition that was archived and dropped anew, empty and beside its table.
CREATE OR REPLACE FUNCTION partition_reopen(given_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    of_table text;
BEGIN
    UPDATE public.partitions AS p SET dropped_at = NULL, restored_at = clock_timestamp()
    WHERE p.name = given_name AND p.dropped_at IS NOT NULL AND p.archived_at IS NOT NULL
    RETURNING p.parent INTO STRICT of_table;
    EXECUTE format(
        'CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)',
        given_name, of_table
    );
    EXECUTE format('GRANT SELECT ON public.%I TO tallystick_serving', given_name);
END
$$;

-- Add rows, each as JSON, to a partition that was reopened; returns their number.
CREATE OR REPLACE FUNCTION partition_fill(given_name text, lines text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    filled integer;
BEGIN
    PERFORM FROM public.partitions AS p
    WHERE p.name = given_name AND p.restored_at IS NOT NULL AND p.detached_at IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not being brought back', given_name USING ERRCODE = 'no_data_found';
    END IF;
    EXECUTE format(
        'INSERT INTO public.%1$I SELECT r.* FROM json_populate_recordset(NULL::public.%1$I, $1::json) AS r', given_name
    ) USING '[' || array_to_string(lines, ',') || ']';
    GET DIAGNOSTICS filled = ROW_COUNT;
    RETURN filled;
END
$$;

-- Attach a partition that was reopened and filled to its table.
CREATE OR REPLACE FUNCTION partition_attach(given_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    part record;
BEGIN
    UPDATE public.partitions AS p SET detached_at = NULL
    FROM partition_rules() AS r
    WHERE p.name = given_name AND p.restored_at IS NOT NULL AND p.detached_at IS NOT NULL AND p.parent = r.parent
    RETURNING p.parent, p.from_at, p.to_at, r.by_id INTO STRICT part;
    EXECUTE format('REVOKE ALL ON public.%I FROM tallystick_serving', given_name);
    EXECUTE format(
        'ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%s) TO (%L)',
        part.parent, given_name,
        CASE WHEN part.from_at IS NULL THEN 'MINVALUE' ELSE quote_literal(partition_bound(part.by_id, part.from_at)) END,
        partition_bound(part.by_id, part.to_at)
    );
END
$$;

-- Remove a partition that was brought back. Its rows stay in the archive.
CREATE OR REPLACE FUNCTION partition_forget(given_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, public, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    part record;
BEGIN
    SELECT p.* INTO STRICT part FROM public.partitions AS p
    WHERE p.name = given_name AND p.restored_at IS NOT NULL AND p.archived_at IS NOT NULL
    FOR UPDATE;
    IF part.detached_at IS NULL THEN
        EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', part.parent, given_name);
    END IF;
    EXECUTE format('DROP TABLE public.%I', given_name);
    UPDATE public.partitions AS p
    SET
        restored_at = NULL, detached_at = coalesce(p.detached_at, clock_timestamp()), dropped_at = clock_timestamp()
    WHERE p.name = given_name;
END
$$;

REVOKE EXECUTE ON FUNCTION partition_reopen FROM public;
REVOKE EXECUTE ON FUNCTION partition_fill FROM public;
REVOKE EXECUTE ON FUNCTION partition_attach FROM public;
REVOKE EXECUTE ON FUNCTION partition_forget FROM public;
