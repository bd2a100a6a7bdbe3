-- name: merchants
-- Up to $2 merchants with ids above $1 after the first $3, oldest first.
SELECT id, phone, is_merchant, merchant_status, merchant_fee_bps FROM users
WHERE is_merchant AND id > $1
ORDER BY id
LIMIT $2 OFFSET $3;

-- name: merchants_in_status
-- Up to $2 users with ids above $1 after the first $3 whose merchant status is $4, oldest first.
SELECT id, phone, is_merchant, merchant_status, merchant_fee_bps FROM users
WHERE merchant_status = $4 AND merchant_status <> 'none' AND id > $1
ORDER BY id
LIMIT $2 OFFSET $3;

-- name: lock_user
-- The user $1, whose row is locked against other changes; no row comes back for an unknown id.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM users AS u
WHERE u.id = $1
FOR NO KEY UPDATE;

-- name: set_merchant
-- Change the merchant $1 and return the terms: merchant or not ($2), status ($3) and own fee ($4), each as it is where
-- null, or no own fee ($5).
UPDATE users SET
    is_merchant = coalesce($2, is_merchant),
    merchant_status = coalesce($3, merchant_status),
    merchant_fee_bps = CASE WHEN NOT $5::boolean THEN coalesce($4, merchant_fee_bps) END,
    merchant_since = CASE
        WHEN $2 AND NOT is_merchant THEN coalesce(merchant_since, clock_timestamp()) ELSE merchant_since
    END
WHERE id = $1
RETURNING is_merchant, merchant_status, merchant_fee_bps;

-- name: set_kyc
-- Set the KYC level ($2) and status ($3) of user $1. No row comes back.
UPDATE users SET kyc_level = $2, kyc_status = $3 WHERE id = $1;

-- name: kyc_queue
-- Up to $2 users with ids above $1 who wait for a review, oldest first.
SELECT id, phone, name, kyc_level, kyc_status, created_at FROM users
WHERE kyc_status = 'pending' AND id > $1
ORDER BY id
LIMIT $2;

-- name: end_sign_ins
-- End all sign-ins of user $1, and the passkeys, by which others could begin. Tokens of the next $2 seconds that name
-- no sign-in, made by a clock that is ahead, end, too. No row comes back, only the number of sign-ins.
WITH told AS (
    UPDATE users
    SET tokens_valid_from = date_trunc('second', clock_timestamp()) + make_interval(secs => $2)
    WHERE id = $1
),

passkey AS (DELETE FROM passkeys WHERE user_id = $1)

UPDATE sessions SET revoked_at = clock_timestamp()
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp();
