-- name: find_demand
-- One row: the request or invoice $1, of the kind $2, with the phones of both sides and, of an invoice, the
-- time from which on a mandate pays it.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone, n.pays_at AS autopay_at
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
LEFT JOIN autopay_notices AS n ON p.id = n.invoice_id
WHERE p.id = $1 AND p.kind = $2;

-- name: demands_on
-- The newest $3 requests or invoices, of the kind $2, with the user $1 as payer: columns as in find_demand. In the
-- state $4, of the payee's phone $5, with the reference $6, before the payable $7: each unless null. Open ones of
-- senders whom the user has blocked are left out.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone, n.pays_at AS autopay_at
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
LEFT JOIN autopay_notices AS n ON p.id = n.invoice_id
WHERE
    p.payer_id = $1 AND p.kind = $2
    AND ($4::text IS NULL OR $4 = CASE
        WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state
    END)
    AND ($5::text IS NULL OR payee.phone = $5)
    AND ($6::text IS NULL OR p.details ->> 'reference' = $6)
    AND (p.created_at, p.id) < (
        CASE
            WHEN $7::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM payables AS b WHERE b.id = $7)
        END,
        coalesce($7, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
    AND NOT (
        p.state = 'open'
        AND EXISTS (SELECT FROM blocked_senders AS s WHERE s.user_id = $1 AND s.sender_id = p.payee_id)
    )
ORDER BY p.created_at DESC, p.id DESC
LIMIT $3;

-- name: demands_of
-- The newest $3 requests or invoices, of the kind $2, with the user $1 as payee: columns as in find_demand. In the
-- state $4, of the payer's phone $5, with the reference $6, before the payable $7: each unless null.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone, n.pays_at AS autopay_at
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
LEFT JOIN autopay_notices AS n ON p.id = n.invoice_id
WHERE
    p.payee_id = $1 AND p.kind = $2
    AND ($4::text IS NULL OR $4 = CASE
        WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state
    END)
    AND ($5::text IS NULL OR payer.phone = $5)
    AND ($6::text IS NULL OR p.details ->> 'reference' = $6)
    AND (p.created_at, p.id) < (
        CASE
            WHEN $7::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM payables AS b WHERE b.id = $7)
        END,
        coalesce($7, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY p.created_at DESC, p.id DESC
LIMIT $3;

-- name: demand_cause
-- The cause that forbids the demand of the kind $3 of the payee $1 to the payer $2, with $4 open ones at most: blocked,
-- too_many, or null.
SELECT demand_cause($1, $2, $3, $4) AS cause;
