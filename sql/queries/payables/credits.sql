-- name: seed_user
-- Set the terms of the demo user $1: name unless null ($2), KYC level ($3) and status ($4), merchant or not ($5), own
-- fee ($6). No row comes back.
UPDATE users SET
    name = coalesce($2, name),
    kyc_level = $3,
    kyc_status = $4,
    is_merchant = $5,
    merchant_status = CASE WHEN $5::boolean THEN 'approved' ELSE 'none' END,
    merchant_fee_bps = $6,
    merchant_since = CASE WHEN $5::boolean THEN coalesce(merchant_since, clock_timestamp()) END,
    -- Development and tests alone have demo users, and their phones receive no codes.
    phone_proven_at = coalesce(phone_proven_at, clock_timestamp())
WHERE id = $1;

-- name: user_at
-- The id of the user after the first $1; no row where there are no more users.
SELECT id FROM users ORDER BY id LIMIT 1 OFFSET $1;

-- name: users_from
-- Up to $2 users from the id $1 on, oldest first.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM users AS u
WHERE u.id >= $1
ORDER BY u.id
LIMIT $2;
