-- name: list_configs
-- Up to $1 configs by their shops, those that are not active included.
SELECT id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at FROM kaspi_configs
ORDER BY shop_id
LIMIT $1;

-- name: find_config
-- The config of the shop $1.
SELECT id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at FROM kaspi_configs
WHERE shop_id = $1;

-- name: config_by_bin
-- The config of the BIN $1: an active one before all others, and of those the one of the lowest shop.
SELECT id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at FROM kaspi_configs
WHERE organization_bin = $1
ORDER BY is_active DESC, shop_id ASC
LIMIT 1;

-- name: add_config
-- Add a config and return it: shop, BIN, sealed token, whether active, label. No row for a shop that has one.
INSERT INTO kaspi_configs (shop_id, organization_bin, device_token, is_active, provider)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (shop_id) DO NOTHING
RETURNING id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at;

-- name: change_config
-- Change the config of the shop $1 and return it: BIN, sealed token (if $3 says so), whether active, label; null leaves
-- a value as it is.
UPDATE kaspi_configs SET
    organization_bin = coalesce($2, organization_bin),
    device_token = CASE WHEN $3 THEN $4 ELSE device_token END,
    is_active = coalesce($5, is_active),
    provider = coalesce($6, provider),
    updated_at = clock_timestamp()
WHERE shop_id = $1
RETURNING id, shop_id, organization_bin, device_token, is_active, provider, created_at, updated_at;

-- name: configs_to_reseal
-- Up to $2 configs with a token of shops above $1: shop_id, device_token.
SELECT shop_id, device_token FROM kaspi_configs
WHERE shop_id > $1 AND device_token IS NOT NULL
ORDER BY shop_id
LIMIT $2;

-- name: reseal_config
-- Give the shop $1 the token $3 in the place of $2, which says the same.
UPDATE kaspi_configs SET device_token = $3
WHERE shop_id = $1 AND device_token = $2;
