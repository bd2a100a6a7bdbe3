-- name: user_endpoints
-- Up to $2 living endpoints of users with ids below $1, newest first: id, user_id, user_phone, url, active, created_at.
SELECT e.id, u.id AS user_id, u.phone AS user_phone, e.url, e.disabled_at IS NULL AS active, e.created_at
FROM webhook_endpoints AS e
INNER JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.deleted_at IS NULL AND e.id < $1
ORDER BY e.id DESC
LIMIT $2;

-- name: lock_endpoint
-- Whether the living endpoint $1 is active, and whose it is; its row is locked. No row where there is none.
SELECT e.disabled_at IS NULL AS active, u.id AS user_id
FROM webhook_endpoints AS e
LEFT JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.id = $1 AND e.deleted_at IS NULL
FOR UPDATE OF e;

-- name: switch_endpoint
-- Switch endpoint $1 on ($2), which forgets its failures, or off. No row comes back.
UPDATE webhook_endpoints
SET
    disabled_at = CASE WHEN $2::boolean THEN NULL ELSE clock_timestamp() END,
    disabled_reason = CASE WHEN $2::boolean THEN NULL ELSE 'by_admin' END,
    failing_since = CASE WHEN $2::boolean THEN NULL ELSE failing_since END,
    failed_attempts = CASE WHEN $2::boolean THEN 0 ELSE failed_attempts END,
    failed_deliveries = CASE WHEN $2::boolean THEN 0 ELSE failed_deliveries END
WHERE id = $1;

-- name: endpoint_deliveries
-- Up to $3 deliveries to endpoint $1 with ids below $2 after the first $4, newest first: id, event_type, state,
-- attempts, last_error, created_at.
SELECT d.id, o.event_type, d.state, d.attempts, d.last_error, d.created_at
FROM webhook_deliveries AS d
INNER JOIN outbox_events AS o ON d.event_id = o.id
WHERE d.endpoint_id = $1 AND d.id < $2
ORDER BY d.id DESC
LIMIT $3 OFFSET $4;

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
-- The user $1, whose row is locked against other changes; no row where there is none.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, TRUE AS live
FROM users AS u
WHERE u.id = $1
FOR NO KEY UPDATE;

-- name: set_merchant
-- Set what is given of user $1: merchant or not ($2), status ($3), own fee ($4), or none of their own ($5): the values
-- after it.
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

-- name: seed_user
-- Set what a demo user is: name where one is given ($2), KYC level and status, merchant or not, own fee ($6). No row
-- comes back.
UPDATE users SET
    name = coalesce($2, name),
    kyc_level = $3,
    kyc_status = $4,
    is_merchant = $5,
    merchant_status = CASE WHEN $5::boolean THEN 'approved' ELSE 'none' END,
    merchant_fee_bps = $6,
    merchant_since = CASE WHEN $5::boolean THEN coalesce(merchant_since, clock_timestamp()) END
WHERE id = $1;

-- name: end_sign_ins
-- End all sign-ins of user $1: how many there were. Tokens name the second of their making, so none of this second
-- count.
WITH told AS (
    UPDATE users SET tokens_valid_from = date_trunc('second', clock_timestamp()) + interval '1 second'
    WHERE id = $1
)

UPDATE sessions SET revoked_at = clock_timestamp()
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp();

-- name: user_at
-- The id of the user whom $1 others precede; no row where there are not so many.
SELECT id FROM users ORDER BY id LIMIT 1 OFFSET $1;

-- name: users_from
-- Up to $2 users from the id $1 on, oldest first.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, TRUE AS live
FROM users AS u
WHERE u.id >= $1
ORDER BY u.id
LIMIT $2;
