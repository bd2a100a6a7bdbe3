-- name: list_order_merchants
-- Up to $2 merchants behind the number $1, with a row for each subscription: number, name, whether active; plan, its
-- name, tokens left; the address for notifications.
WITH shown AS (
    SELECT id, name, active, callback_url FROM order_merchants
    WHERE id > $1
    ORDER BY id
    LIMIT $2
)

SELECT
    m.id, m.name, m.active, s.plan_id, p.name AS plan,
    CASE WHEN s.active THEN greatest(p.tokens - s.used_tokens, 0) WHEN s.plan_id IS NOT NULL THEN 0 END AS tokens_left,
    m.callback_url
FROM shown AS m
LEFT JOIN order_subscriptions AS s ON m.id = s.merchant_id
LEFT JOIN order_plans AS p ON s.plan_id = p.id
ORDER BY m.id, s.plan_id;

-- name: end_keys
-- End all keys of the merchant $1.
UPDATE order_keys SET active = FALSE WHERE merchant_id = $1 AND active;

-- name: add_key
-- Store the key with the hash $1 of the merchant $2, if there is one.
INSERT INTO order_keys (hash, merchant_id)
SELECT
    $1 AS hash, m.id AS merchant_id
FROM order_merchants AS m
WHERE m.id = $2;

-- name: set_address
-- Set the address for notifications of the merchant $1.
UPDATE order_merchants SET callback_url = $2 WHERE id = $1;
