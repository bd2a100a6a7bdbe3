-- name: expire_payables
-- Mark up to $1 payables whose time is over as expired, and return a row for each. Payables that somebody pays at this
-- moment are left to the next round.
WITH due AS (
    SELECT id FROM payables
    -- The time is that of the transaction: no index serves a comparison with a clock that moves while it is read.
    WHERE state = 'open' AND expires_at <= now()
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)

UPDATE payables AS p SET state = 'expired', updated_at = clock_timestamp()
FROM due WHERE p.id = due.id
RETURNING p.id, p.kind, p.payee_id, p.payer_id, p.amount, p.currency, p.hold_id;
