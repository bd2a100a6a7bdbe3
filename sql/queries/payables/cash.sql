-- name: cash_request
-- One row: the cash request of id $1 with the columns of its customer (as users.sql has them), whether the customer's
-- wallet is frozen, the number of its hold, and the phone of the agent who completed it.
SELECT
    p.id AS request_id, p.kind AS request_kind, p.amount, p.currency, p.details::text AS details, p.hold_id,
    p.created_at AS requested_at, h.no AS hold_no, agent.phone AS agent_phone,
    a.state = 1 AS wallet_frozen,
    CASE WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state END AS request_state,
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM payables AS p
INNER JOIN users AS u ON u.id = CASE p.kind WHEN 'cash_in' THEN p.payee_id ELSE p.payer_id END
INNER JOIN accounts AS a ON a.code = 'wallet:' || u.wallet_id
LEFT JOIN keys AS h ON p.hold_id = h.id
LEFT JOIN users AS agent ON p.state = 'paid' AND p.settled_by = agent.id
WHERE p.id = $1 AND p.kind IN ('cash_in', 'cash_out');

-- name: cash_requests_of
-- The $2 newest cash requests of user $1, newest first.
SELECT
    p.id, p.kind, u.phone, agent.phone AS agent_phone, p.amount, p.currency, p.created_at,
    CASE WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state END AS state
FROM (
    (
        SELECT i.* FROM payables AS i
        WHERE i.payee_id = $1 AND i.kind = 'cash_in'
        ORDER BY i.created_at DESC, i.id DESC
        LIMIT $2
    )
    UNION ALL
    (
        SELECT o.* FROM payables AS o
        WHERE o.payer_id = $1 AND o.kind = 'cash_out'
        ORDER BY o.created_at DESC, o.id DESC
        LIMIT $2
    )
) AS p
INNER JOIN users AS u ON u.id = $1
LEFT JOIN users AS agent ON p.state = 'paid' AND p.settled_by = agent.id
ORDER BY p.created_at DESC, p.id DESC
LIMIT $2;

-- name: cash_requests_open
-- The $1 oldest cash requests that wait for an agent, of all users, oldest first.
SELECT p.id, p.kind, u.phone, NULL AS agent_phone, p.amount, p.currency, p.created_at, p.state
FROM payables AS p
INNER JOIN users AS u ON u.id = CASE p.kind WHEN 'cash_in' THEN p.payee_id ELSE p.payer_id END
WHERE
    p.state = 'open' AND p.kind IN ('cash_in', 'cash_out')
    AND (p.expires_at > clock_timestamp() OR p.expires_at IS NULL)
ORDER BY p.created_at, p.id
LIMIT $1;

-- name: make_agent
-- Make user $1 an agent; no row comes back for a user who is an agent already.
UPDATE users SET is_agent = TRUE WHERE id = $1 AND NOT is_agent RETURNING id;
