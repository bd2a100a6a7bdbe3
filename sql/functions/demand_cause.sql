-- The cause that forbids a demand (a request or an invoice), which the caller's transaction has stored just now: the
-- payer has blocked the payee, or more than `most` demands of this kind between the two are open. Null: none.
--
-- The lock of the payee's row makes demands of one payee wait for each other, so that the count is exact. It is taken
-- before any account's lock, as by an administrator who freezes a wallet.
CREATE OR REPLACE FUNCTION demand_cause(payee uuid, payer uuid, demand_kind text, most integer) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM FROM users AS u WHERE u.id = payee FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM blocked_senders AS b WHERE b.user_id = payer AND b.sender_id = payee) THEN
        RETURN 'blocked';
    END IF;
    IF most > 0 AND (
        SELECT count(*) FROM (
            SELECT FROM payables AS p
            WHERE
                p.payee_id = payee AND p.payer_id = payer AND p.kind = demand_kind AND p.state = 'open'
                AND p.kind IN ('request', 'invoice')
                AND (p.expires_at > clock_timestamp() OR p.expires_at IS NULL)
            LIMIT most + 1
        ) AS counted
    ) > most THEN
        RETURN 'too_many';
    END IF;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION demand_cause FROM public;
GRANT EXECUTE ON FUNCTION demand_cause TO tallystick_serving;
