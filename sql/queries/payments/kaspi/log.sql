-- name: add_log_row
-- Write a row and return it: shop, BIN, operation, external id, amount in hundredths, status, error, label, payment.
INSERT INTO kaspi_log (
    shop_id, organization_bin, operation_type, external_id, amount, status, error_message, provider, payment_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING
    shop_id, organization_bin, operation_type, external_id, amount, status, error_message, provider, id, created_at;

-- name: log_rows
-- Up to $2 rows of operation $1 (null: all) after the first $3, the newest first.
SELECT
    shop_id, organization_bin, operation_type, external_id, amount, status, error_message, provider, id, created_at
FROM kaspi_log
WHERE $1::text IS NULL OR operation_type = $1
ORDER BY created_at DESC, id DESC
LIMIT $2 OFFSET $3;

-- name: log_rows_of_shop
-- Up to $3 rows of the shop $1 and the operation $2 (null: all) after the first $4, the newest first.
SELECT
    shop_id, organization_bin, operation_type, external_id, amount, status, error_message, provider, id, created_at
FROM kaspi_log
WHERE shop_id = $1 AND ($2::text IS NULL OR operation_type = $2)
ORDER BY created_at DESC, id DESC
LIMIT $3 OFFSET $4;
