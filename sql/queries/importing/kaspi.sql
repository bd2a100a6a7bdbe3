-- name: old_configs
-- From the source: the organization and the device of each shop.
SELECT
    c.id, c.shop_id, c.organization_bin, c.device_token, c.is_active, c.provider, c.created_at, c.updated_at
FROM paymentconfig AS c
ORDER BY c.id;

-- name: old_log
-- From the source: the audit log.
SELECT
    l.id, l.shop_id, l.organization_bin, l.operation_type, l.external_id, l.amount, l.status, l.error_message,
    l.provider, l.created_at
FROM paymentlog AS l
ORDER BY l.id;

-- name: import_config
-- Store the config of a shop under its number: id, shop, BIN, sealed token, active, label, created, updated. No row
-- comes back where the shop has one.
INSERT INTO kaspi_configs (
    id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: known_config
-- The config of the shop $1: organization_bin, device_token.
SELECT
    c.organization_bin, c.device_token
FROM kaspi_configs AS c
WHERE c.shop_id = $1;

-- name: known_log
-- The row of the log with the number $1, whole.
SELECT
    l.shop_id, l.organization_bin, l.operation_type, l.external_id, l.amount, l.status, l.error_message, l.provider,
    l.created_at
FROM kaspi_log AS l
WHERE l.id = $1;

-- name: import_log
-- Store a row of the log under its number; no row comes back where it is known.
INSERT INTO kaspi_log (
    id, shop_id, organization_bin, operation_type, external_id, amount, status, error_message, provider, created_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: after_configs
-- Let new configs get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('kaspi_configs', 'id'),
    greatest((SELECT max(c.id) FROM kaspi_configs AS c), (SELECT s.last_value FROM kaspi_configs_id_seq AS s), 1)
);

-- name: after_log
-- Let new rows of the log get numbers above those that were carried over.
SELECT setval(
    pg_get_serial_sequence('kaspi_log', 'id'),
    greatest((SELECT max(l.id) FROM kaspi_log AS l), (SELECT s.last_value FROM kaspi_log_id_seq AS s), 1)
);
