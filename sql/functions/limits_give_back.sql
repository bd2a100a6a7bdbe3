-- Give back to the windows of their wallets what the holds of the payables $1 have used up: these payables have ended
-- unpaid in the caller's transaction, which calls this once. Returns the number of buckets that were changed.
--
-- A hold was counted at a time between the creation of its payable and its batch's time. A bucket is changed only where
-- both lie in it, so that no other day is ever given more than it has lost.
CREATE OR REPLACE FUNCTION limits_give_back(payable_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    changed integer;
BEGIN
    PERFORM FROM accounts AS a
    WHERE a.id IN (
        SELECT h.source_id FROM payables AS p
        INNER JOIN keys AS k ON p.hold_id = k.id
        INNER JOIN holds AS h ON k.no = h.no
        WHERE p.id = ANY (payable_ids)
    )
    ORDER BY a.id
    FOR NO KEY UPDATE;
    WITH counted AS (
        SELECT
            h.source_id AS account_id, b.span, date_trunc(b.unit, p.created_at, 'UTC') AS bucket,
            sum(h.amount) AS amount, count(*) AS uses
        FROM payables AS p
        INNER JOIN keys AS k ON p.hold_id = k.id
        INNER JOIN holds AS h ON k.no = h.no
        INNER JOIN batches AS made ON made.seq = batch_of(k.no)
        CROSS JOIN (VALUES ('m'::"char", 'minute'), ('d'::"char", 'day')) AS b (span, unit)
        WHERE
            p.id = ANY (payable_ids) AND p.state IN ('canceled', 'rejected', 'expired') AND h.captured = 0
            AND date_trunc(b.unit, p.created_at, 'UTC') = date_trunc(b.unit, made.recorded_at, 'UTC')
        GROUP BY h.source_id, b.span, date_trunc(b.unit, p.created_at, 'UTC')
    )
    UPDATE window_usage AS w
    SET amount = greatest(w.amount - c.amount, 0), uses = greatest(w.uses - c.uses, 0)
    FROM counted AS c
    WHERE w.account_id = c.account_id AND w.span = c.span AND w.bucket = c.bucket;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

REVOKE EXECUTE ON FUNCTION limits_give_back FROM public;
GRANT EXECUTE ON FUNCTION limits_give_back TO tallystick_serving;
