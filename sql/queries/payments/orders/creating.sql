-- name: order_to_make
-- One row: the number and the payment of the merchant $1's order $2 where there is one; else a number for a new one,
-- where the alias $3 is known; and the merchant's principal.
SELECT
    o.id AS known, o.payment_id, m.principal_id,
    CASE WHEN o.id IS NULL AND a.alias IS NOT NULL THEN nextval('order_payments_id_seq') END AS fresh
FROM (VALUES ($1::bigint, $2::bigint, $3::text)) AS asked (merchant_id, order_id, alias)
LEFT JOIN order_payments AS o ON asked.merchant_id = o.merchant_id AND asked.order_id = o.order_id
LEFT JOIN order_aliases AS a ON asked.alias = a.alias
LEFT JOIN order_merchants AS m ON asked.merchant_id = m.id;

-- name: order_of_merchant
-- The number and the payment of the merchant $1's order $2; no row if there is none.
SELECT o.id AS known, o.payment_id FROM order_payments AS o
WHERE o.merchant_id = $1 AND o.order_id = $2;

-- name: store_order
-- Store an order (number, payment, merchant, order, plan, alias, amount, price, scale) and its request (event id,
-- source); return the number, or no row where the merchant has used the event id. The caller then rolls back. An
-- attempt at the provider $12, which knows payments by their number, is found by it from now on.
WITH placed AS (
    INSERT INTO order_payments (
        id, payment_id, merchant_id, order_id, plan_id, alias, amount, price, scale
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    RETURNING id, merchant_id, plan_id, amount
),

named AS (
    INSERT INTO payment_names (provider, name, attempt_id)
    SELECT
        a.provider, $1::bigint::text AS name, a.id AS attempt_id
    FROM payment_attempts AS a
    WHERE a.payment_id = $2 AND a.provider = $12
    ON CONFLICT (provider, name) DO NOTHING
)

INSERT INTO order_requests (merchant_id, event_id, order_payment_id, plan_id, amount, source)
SELECT
    merchant_id, $10 AS event_id, id AS order_payment_id, plan_id, amount, $11 AS source
FROM placed
ON CONFLICT (merchant_id, event_id) DO NOTHING
RETURNING order_payment_id;
