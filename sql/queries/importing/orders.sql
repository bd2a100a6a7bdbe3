-- name: old_plans
-- From the source: the plans.
SELECT
    s.id, s.name, s.price, s.tokens
FROM subscriptions AS s
ORDER BY s.id;

-- name: old_merchants
-- From the source: the merchants; administrators (role 1) are no merchants.
SELECT
    u.id, u.name, u.email, u.status, u.created_at
FROM users AS u
WHERE u.role = 2
ORDER BY u.id;

-- name: old_keys
-- From the source: hashes of merchants' API keys.
SELECT
    k.hash, k.merchant_id, k.status, k.created_at
FROM merchant_api_keys AS k
ORDER BY k.id;

-- name: old_subscriptions_of_merchants
-- From the source: merchants' subscriptions with the tokens that they have used.
SELECT
    u.user_id, u.subscription_id, u.used_tokens, u.status, s.tokens, u.created_at, u.updated_at
FROM user_subscriptions AS u
INNER JOIN subscriptions AS s ON u.subscription_id = s.id
ORDER BY u.id;

-- name: old_aliases
-- From the source: providers by their aliases.
SELECT
    p.alias, p.name, p.created_at
FROM providers AS p
ORDER BY p.id;

-- name: old_orders
-- From the source: payments with the alias of their provider, and the request that has used a token.
SELECT
    p.id, p.price, p.amount, p.merchant_id, p.order_id, p.status, p.created_at, p.updated_at, v.alias,
    r.event_id, r.subscription_id, r.source
FROM payments AS p
LEFT JOIN providers AS v ON p.provider_id = v.id
LEFT JOIN api_requests AS r ON p.id = r.payment_id
ORDER BY p.id, r.id;

-- name: old_notifications
-- From the source, the database of logs: notifications of merchants that were never delivered.
SELECT
    l.id, l.payment_id, l.status, l.retry_count
FROM payment_logs AS l
WHERE l.event_type = 4 AND l.status <> 2
ORDER BY l.id;

-- name: import_plan
-- Store a plan: number, name, price, tokens. No row comes back where it is known.
INSERT INTO order_plans (id, name, price_cents, tokens)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: known_plan
-- The plan with the number $1: name, price_cents, tokens.
SELECT
    p.name, p.price_cents, p.tokens
FROM order_plans AS p
WHERE p.id = $1;

-- name: known_merchant
-- The merchant with the number $1: email, created_at.
SELECT
    m.email, m.created_at
FROM order_merchants AS m
WHERE m.id = $1;

-- name: known_order_key
-- The merchant_id of the key with the hash $1.
SELECT k.merchant_id FROM order_keys AS k
WHERE k.hash = $1;

-- name: known_order_subscription
-- The created_at of the subscription of the merchant $1 to the plan $2.
SELECT s.created_at FROM order_subscriptions AS s
WHERE s.merchant_id = $1 AND s.plan_id = $2;

-- name: known_order
-- The order with the number $1: payment_id, merchant_id, order_id, amount, created_at.
SELECT
    o.payment_id, o.merchant_id, o.order_id, o.amount, o.created_at
FROM order_payments AS o
WHERE o.id = $1;

-- name: import_merchant
-- Store a merchant under its number: number, the name of its principal, name, email, active, created. No row comes
-- back where it is known.
WITH principal AS (
    INSERT INTO principals (name) SELECT $2
    WHERE NOT EXISTS (SELECT FROM order_merchants WHERE id = $1)
    RETURNING id
)

INSERT INTO order_merchants (id, principal_id, name, email, active, created_at)
SELECT
    $1 AS id, principal.id AS principal_id, $3 AS name, $4 AS email, $5 AS active, $6 AS created_at
FROM principal
RETURNING id;

-- name: import_order_key
-- Store the hash of a merchant's key: hash, merchant, active, created. No row comes back where it is known.
INSERT INTO order_keys (hash, merchant_id, active, created_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING merchant_id;

-- name: import_order_subscription
-- Store a merchant's subscription: merchant, plan, used tokens, active, created, updated.
INSERT INTO order_subscriptions (merchant_id, plan_id, used_tokens, active, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING merchant_id;

-- name: import_alias
-- Store an alias of a provider: alias, name, created.
INSERT INTO order_aliases (alias, name, created_at)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING alias;

-- name: import_order
-- Store an order under its number: number, payment, merchant, order, plan, alias, amount, price, holds token, created.
INSERT INTO order_payments (
    id, payment_id, merchant_id, order_id, plan_id, alias, amount, price, scale, holds_token, created_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 8, $9, $10)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: import_order_request
-- Store the request of an order: merchant, event id, order, plan, amount, source, created.
INSERT INTO order_requests (merchant_id, event_id, order_payment_id, plan_id, amount, source, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING;

-- name: after_plans
-- Let new plans get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('order_plans', 'id'),
    greatest((SELECT max(p.id) FROM order_plans AS p), (SELECT s.last_value FROM order_plans_id_seq AS s), 1)
);

-- name: after_merchants
-- Let new merchants get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('order_merchants', 'id'),
    greatest((SELECT max(m.id) FROM order_merchants AS m), (SELECT s.last_value FROM order_merchants_id_seq AS s), 1)
);

-- name: after_orders
-- Let new orders get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('order_payments', 'id'),
    greatest((SELECT max(o.id) FROM order_payments AS o), (SELECT s.last_value FROM order_payments_id_seq AS s), 1)
);
