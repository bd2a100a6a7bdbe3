-- name: callback_url
-- The address of the merchant $1 for notifications, null where it has none of its own.
SELECT m.callback_url FROM order_merchants AS m
WHERE m.id = $1;
