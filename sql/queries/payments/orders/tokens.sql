-- name: take_token
-- The plan of which a token was taken, a subscription of the merchant $1 to the plan $2 (null: to any); no row: there
-- is none that is active and has tokens left. A row that another call has just used up is passed over.
WITH chosen AS (
    SELECT s.merchant_id, s.plan_id
    FROM order_subscriptions AS s
    INNER JOIN order_plans AS p ON s.plan_id = p.id
    INNER JOIN order_merchants AS m ON s.merchant_id = m.id
    WHERE
        s.merchant_id = $1 AND ($2::bigint IS NULL OR s.plan_id = $2)
        AND s.active AND m.active AND s.used_tokens < p.tokens
    ORDER BY s.created_at, s.plan_id
    LIMIT 1
    FOR NO KEY UPDATE OF s
)

UPDATE order_subscriptions AS s SET used_tokens = s.used_tokens + 1, updated_at = clock_timestamp()
FROM chosen
INNER JOIN order_plans AS p ON chosen.plan_id = p.id
WHERE s.merchant_id = chosen.merchant_id AND s.plan_id = chosen.plan_id AND s.used_tokens < p.tokens
RETURNING s.plan_id;

-- name: has_subscription
-- Whether the merchant $1 has an active subscription to the plan $2 (null: to any), with or without tokens.
SELECT count(*) > 0 AS found FROM order_subscriptions AS s
INNER JOIN order_merchants AS m ON s.merchant_id = m.id
WHERE s.merchant_id = $1 AND ($2::bigint IS NULL OR s.plan_id = $2) AND s.active AND m.active;

-- name: hold_token
-- Let the order of the payment $1 hold a token or ($2 false) none, and count that at its subscription.
WITH changed AS (
    UPDATE order_payments SET holds_token = $2
    WHERE payment_id = $1 AND holds_token <> $2
    RETURNING merchant_id, plan_id
)

UPDATE order_subscriptions AS s SET
    used_tokens = s.used_tokens + CASE WHEN $2 THEN 1 ELSE -1 END, updated_at = clock_timestamp()
FROM changed
WHERE s.merchant_id = changed.merchant_id AND s.plan_id = changed.plan_id;
