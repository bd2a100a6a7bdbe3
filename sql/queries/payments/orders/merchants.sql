-- name: merchant_by_key
-- The active merchant of the active key with the hash $1; no row: there is none.
SELECT k.merchant_id FROM order_keys AS k
INNER JOIN order_merchants AS m ON k.merchant_id = m.id
WHERE k.hash = $1 AND k.active AND m.active;

-- name: ensure_alias
-- Store the alias $1 of a provider with the name $2; return the alias if it is new.
INSERT INTO order_aliases (alias, name) VALUES ($1, $2)
ON CONFLICT (alias) DO NOTHING
RETURNING alias;

-- name: ensure_plan
-- The id of the plan $1, made with the price $2 and the tokens $3 if there was none, and whether it is new.
INSERT INTO order_plans AS p (name, price_cents, tokens) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING p.id, p.xmax = 0 AS new;

-- name: new_merchant_id
-- The id of a merchant that is made next.
SELECT nextval('order_merchants_id_seq');

-- name: store_merchant
-- Store a merchant: its id, the name of its principal, which is made, and its own name.
WITH made AS (
    INSERT INTO principals (name) VALUES ($2)
    RETURNING id
)

INSERT INTO order_merchants (id, principal_id, name)
SELECT
    $1 AS id, made.id AS principal_id, $3 AS name
FROM made;

-- name: store_subscription
-- Subscribe the merchant $1 to the plan $2.
INSERT INTO order_subscriptions (merchant_id, plan_id) VALUES ($1, $2);

-- name: store_key
-- Store the key with the hash $1 of the merchant $2.
INSERT INTO order_keys (hash, merchant_id) VALUES ($1, $2);
