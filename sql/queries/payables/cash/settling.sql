-- name: cash_request
-- One row: the cash request of id $1 with the columns of its customer (as users.sql has them), whether the customer's
-- wallet is frozen, the number of its hold, the agent who may complete it, and the bounds of user $2 as an agent.
SELECT
    p.id AS request_id, p.kind AS request_kind, p.amount, p.currency, p.details::text AS details, p.hold_id,
    p.created_at AS requested_at, p.agent_id, h.no AS hold_no, own.request_max, own.day_max, own.float_max,
    a.state = 1 AS wallet_frozen,
    CASE WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state END AS request_state,
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM payables AS p
INNER JOIN users AS u ON u.id = CASE p.kind WHEN 'cash_in' THEN p.payee_id ELSE p.payer_id END
INNER JOIN accounts AS a ON a.code = 'wallet:' || u.wallet_id
LEFT JOIN keys AS h ON p.hold_id = h.id
LEFT JOIN agents AS own ON own.user_id = $2
WHERE p.id = $1 AND p.kind IN ('cash_in', 'cash_out');
