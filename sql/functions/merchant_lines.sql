-- The lines of a merchant's statement for the account's entries with versions above `first_after` up to `last`: `in` is
-- a sale, `fee` the fee on one or its part that comes back with a refund, `refund` money given back. A sale is money
-- that another user has paid. Money from a system account or over an agent's counter, a refund received and a payment
-- of one's own code are no sales. A payment and its refund have four legs, 0 to 3 in the low twelve bits of `no`:
-- payer, payee, payer of the fee, receiver of the fee.
--
-- The query is a function for the sake of its settings: a range of a few thousand versions is read by index seeks,
-- while the planner would read the whole of batches for it.
CREATE OR REPLACE FUNCTION merchant_lines(account_code text, first_after bigint, last bigint)
RETURNS TABLE (version bigint, recorded_at timestamptz, direction text, amount bigint, transfer_id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET max_parallel_workers_per_gather = 0
AS $$
    SELECT line.version, line.recorded_at, line.direction, line.amount, line.transfer_id
    FROM (
        SELECT
            e.version, b.recorded_at, e.amount, t.id AS transfer_id,
            CASE
                WHEN t.target IS NOT NULL OR t.kind LIKE ANY (ARRAY['refund%', 'admin.refund%'])
                    THEN CASE
                        WHEN e.no & 4095 < 2 AND e.amount < 0 THEN 'refund' WHEN e.no & 4095 = 2 AND e.amount > 0 THEN 'fee'
                    END
                WHEN t.kind LIKE ANY (ARRAY[
                    'wallet.topup%', 'wallet.airdrop%', 'wallet.seed%', 'airdrop%', 'seed%', 'voucher%', 'cash%', 'admin%',
                    'reconcile%'
                ]) THEN NULL
                WHEN e.no & 4095 = 2 AND e.amount < 0 THEN 'fee'
                WHEN e.no & 4095 = 1 AND e.amount > 0 AND NOT EXISTS (
                    SELECT FROM entries AS own
                    WHERE own.account_id = e.account_id AND own.version = e.version - 1 AND own.no = e.no - 1
                ) THEN 'in'
            END AS direction
        FROM entries AS e
        INNER JOIN batches AS b ON b.seq = batch_of(e.no)
        INNER JOIN transfers AS t ON t.no = item_of(e.no)
        WHERE e.account_id = (SELECT a.id FROM accounts AS a WHERE a.code = account_code)
            AND e.version > first_after AND e.version <= last
        OFFSET 0 -- so that the direction is computed once a line
    ) AS line
    WHERE line.direction IS NOT NULL
    ORDER BY line.version
$$;

REVOKE EXECUTE ON FUNCTION merchant_lines FROM public;
GRANT EXECUTE ON FUNCTION merchant_lines TO tallystick_serving;
