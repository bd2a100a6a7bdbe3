-- name: cash_requests_of
-- The $2 newest cash requests of user $1, newest first: of the kind $3 and in the state $4 unless null, before the
-- request $5 unless null.
SELECT
    p.id, p.kind, u.phone, agent.phone AS agent_phone, p.amount, p.currency, p.state, p.created_at, p.expires_at,
    p.code, named.phone AS named_phone
FROM (
    (
        SELECT
            q.id, q.kind, q.amount, q.currency, q.created_at, q.expires_at, q.code, q.agent_id, q.settled_by,
            CASE WHEN q.state = 'open' AND q.expires_at <= clock_timestamp() THEN 'expired' ELSE q.state END AS state
        FROM payables AS q
        WHERE
            q.payee_id = $1 AND q.kind = 'cash_in' AND ($3::text IS NULL OR q.kind = $3)
            AND ($4::text IS NULL OR $4 = CASE
                WHEN q.state = 'open' AND q.expires_at <= clock_timestamp() THEN 'expired' ELSE q.state
            END)
            AND (q.created_at, q.id) < (
                CASE
                    WHEN $5::uuid IS NULL THEN 'infinity'
                    ELSE (SELECT b.created_at FROM payables AS b WHERE b.id = $5)
                END,
                coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            )
        ORDER BY q.created_at DESC, q.id DESC
        LIMIT $2
    )
    UNION ALL
    (
        SELECT
            q.id, q.kind, q.amount, q.currency, q.created_at, q.expires_at, q.code, q.agent_id, q.settled_by,
            CASE WHEN q.state = 'open' AND q.expires_at <= clock_timestamp() THEN 'expired' ELSE q.state END AS state
        FROM payables AS q
        WHERE
            q.payer_id = $1 AND q.kind = 'cash_out' AND ($3::text IS NULL OR q.kind = $3)
            AND ($4::text IS NULL OR $4 = CASE
                WHEN q.state = 'open' AND q.expires_at <= clock_timestamp() THEN 'expired' ELSE q.state
            END)
            AND (q.created_at, q.id) < (
                CASE
                    WHEN $5::uuid IS NULL THEN 'infinity'
                    ELSE (SELECT b.created_at FROM payables AS b WHERE b.id = $5)
                END,
                coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            )
        ORDER BY q.created_at DESC, q.id DESC
        LIMIT $2
    )
) AS p
INNER JOIN users AS u ON u.id = $1
LEFT JOIN users AS agent ON p.state = 'paid' AND p.settled_by = agent.id
LEFT JOIN users AS named ON p.agent_id = named.id
ORDER BY p.created_at DESC, p.id DESC
LIMIT $2;

-- name: cash_requests_open
-- Up to $5 open cash requests behind $4 others for the agent $1: those that name the agent, oldest first, then those
-- that name nobody, a first one of each customer before a second one. Kind $2 and phone $3 narrow them unless null.
SELECT
    p.id, p.kind, u.phone, NULL AS agent_phone, p.amount, p.currency, p.state, p.created_at, p.expires_at, p.code,
    named.phone AS named_phone, p.agent_id
FROM (
    SELECT
        q.*, row_number() OVER (
            PARTITION BY q.agent_id, coalesce(q.payee_id, q.payer_id)
            ORDER BY q.created_at, q.id
        ) AS turn
    FROM payables AS q
    WHERE
        q.state = 'open' AND q.kind IN ('cash_in', 'cash_out')
        AND (q.expires_at > clock_timestamp() OR q.expires_at IS NULL)
        AND (q.agent_id IS NULL OR q.agent_id = $1)
        AND ($2::text IS NULL OR q.kind = $2)
) AS p
INNER JOIN users AS u ON u.id = CASE p.kind WHEN 'cash_in' THEN p.payee_id ELSE p.payer_id END
LEFT JOIN users AS named ON p.agent_id = named.id
WHERE ($3::text IS NULL OR (u.phone = $3 AND p.agent_id = $1))
ORDER BY p.agent_id IS NULL, p.turn, p.created_at, p.id
LIMIT $5 OFFSET $4;

-- name: claim_cash_request
-- Let the agent $2 complete the open request of code $1, and return it with its customer and the agent named before; no
-- row comes back for another code. The customer's own request is left as it is.
WITH found AS (
    SELECT q.id, q.agent_id, coalesce(q.payee_id, q.payer_id) AS customer_id
    FROM payables AS q
    WHERE
        q.id = any(array(SELECT coded.id FROM payables AS coded WHERE coded.code = $1))
        AND q.state = 'open' AND q.kind IN ('cash_in', 'cash_out')
        AND (q.expires_at > clock_timestamp() OR q.expires_at IS NULL)
    FOR NO KEY UPDATE
)

UPDATE payables AS p
SET agent_id = CASE WHEN found.customer_id = $2 THEN p.agent_id ELSE $2 END
FROM found
INNER JOIN users AS u ON found.customer_id = u.id
INNER JOIN users AS agent ON agent.id = $2
WHERE p.id = found.id
RETURNING
    p.id, p.kind, u.phone, NULL AS agent_phone, p.amount, p.currency, p.state, p.created_at, p.expires_at, p.code,
    agent.phone AS named_phone, found.customer_id, found.agent_id AS named_before;
