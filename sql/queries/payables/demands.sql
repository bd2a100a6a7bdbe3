-- name: find_demand
-- One row: the request or invoice $1, of the kind $2, with the phones of both sides.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
WHERE p.id = $1 AND p.kind = $2;

-- name: demands_on
-- The newest $3 requests or invoices, of the kind $2, with the user $1 as payer: columns as in find_demand.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
WHERE p.payer_id = $1 AND p.kind = $2
ORDER BY p.created_at DESC, p.id DESC
LIMIT $3;

-- name: demands_of
-- The newest $3 requests or invoices, of the kind $2, with the user $1 as payee: columns as in find_demand.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.phone AS payee_phone, payer.phone AS payer_phone
FROM payables AS p
INNER JOIN users AS payee ON p.payee_id = payee.id
INNER JOIN users AS payer ON p.payer_id = payer.id
WHERE p.payee_id = $1 AND p.kind = $2
ORDER BY p.created_at DESC, p.id DESC
LIMIT $3;
