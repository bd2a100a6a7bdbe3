-- name: order_by_number
-- The order of the number $1, with the state of its payment; no row if it is not of the merchant $2 (null: anyone's).
SELECT
    o.id AS number, o.payment_id, o.merchant_id, o.order_id, o.alias, o.amount, o.price, o.scale, o.created_at, p.state
FROM order_payments AS o
INNER JOIN payments AS p ON o.payment_id = p.id
WHERE o.id = $1 AND ($2::bigint IS NULL OR o.merchant_id = $2);

-- name: order_by_payment
-- A row as in order_by_number: the order of the payment $1.
SELECT
    o.id AS number, o.payment_id, o.merchant_id, o.order_id, o.alias, o.amount, o.price, o.scale, o.created_at, p.state
FROM order_payments AS o
INNER JOIN payments AS p ON o.payment_id = p.id
WHERE o.payment_id = $1;

-- name: list_orders
-- Up to $2 orders of the merchant $1 behind the first $3, the newest first, as in order_by_number; each row has the
-- number of all. An empty page is one row without an order.
WITH counted AS (
    SELECT count(*) AS total FROM order_payments
    WHERE merchant_id = $1
),

shown AS (
    SELECT
        o.id AS number, o.payment_id, o.merchant_id, o.order_id, o.alias, o.amount, o.price, o.scale, o.created_at,
        p.state
    FROM order_payments AS o
    INNER JOIN payments AS p ON o.payment_id = p.id
    WHERE o.merchant_id = $1
    ORDER BY o.created_at DESC, o.id DESC
    LIMIT $2 OFFSET $3
)

SELECT
    shown.number, shown.payment_id, shown.merchant_id, shown.order_id, shown.alias, shown.amount, shown.price,
    shown.scale, shown.created_at, shown.state, counted.total
FROM counted
LEFT JOIN shown ON TRUE
ORDER BY shown.created_at DESC, shown.number DESC;
