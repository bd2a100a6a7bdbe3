-- name: list_payments
-- Up to $5 payments in one of the states $1, of the surface $2, made before $3, with ids below $4 (null: any), newest
-- first.
SELECT
    p.id, p.surface, p.caller, p.request_id, p.state, p.amount, p.scale, p.currency, p.paid, p.refunded, p.created_at,
    p.updated_at
FROM payments AS p
WHERE
    ($1::text[] IS NULL OR p.state = any($1))
    AND ($2::text IS NULL OR p.surface = $2)
    AND ($3::timestamptz IS NULL OR p.created_at < $3)
    AND ($4::uuid IS NULL OR p.id < $4)
ORDER BY p.id DESC
LIMIT $5;

-- name: unknown_refunds
-- Up to $2 refunds whose end nobody knows, with ids below $1 (null: any), newest first: payment_id, request_id.
SELECT r.payment_id, r.request_id FROM payment_refunds AS r
WHERE r.state = 'unknown' AND ($1::uuid IS NULL OR r.id < $1)
ORDER BY r.id DESC
LIMIT $2;
