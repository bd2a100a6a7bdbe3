-- Whether more than `most` cash requests of a customer are open, one of which the caller's transaction has stored just
-- now. 0: any number may be.
--
-- The lock of the customer's row makes requests of one customer wait for each other, so that the count is exact. It is
-- taken before any account's lock, as by demand_cause.
CREATE OR REPLACE FUNCTION cash_crowded(customer uuid, most integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM FROM users AS u WHERE u.id = customer FOR NO KEY UPDATE;
    RETURN most > 0 AND (
        SELECT count(*) FROM (
            (
                SELECT FROM payables AS p
                WHERE
                    p.payee_id = customer AND p.kind = 'cash_in' AND p.state = 'open'
                    AND (p.expires_at > clock_timestamp() OR p.expires_at IS NULL)
                LIMIT most + 1
            )
            UNION ALL
            (
                SELECT FROM payables AS p
                WHERE
                    p.payer_id = customer AND p.kind = 'cash_out' AND p.state = 'open'
                    AND (p.expires_at > clock_timestamp() OR p.expires_at IS NULL)
                LIMIT most + 1
            )
        ) AS counted
    ) > most;
END
$$;

REVOKE EXECUTE ON FUNCTION cash_crowded FROM public;
GRANT EXECUTE ON FUNCTION cash_crowded TO tallystick_serving;
