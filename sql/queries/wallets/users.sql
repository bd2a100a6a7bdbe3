-- name: users_by_id
-- One row for each user of the ids $1: place, and the user. $2 are the sign-ins of the tokens, null for a token without
-- one; `live` is false where the sign-in has ended.
SELECT
    wanted.place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from,
    wanted.session_id IS NULL OR (s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > now()) AS live
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS wanted (user_id, session_id, place)
INNER JOIN users AS u ON wanted.user_id = u.id
LEFT JOIN sessions AS s ON wanted.session_id = s.id;

-- name: users_by_phone
-- One row for each user of the phones $1: place, and the user.
SELECT
    wanted.place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, TRUE AS live
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (phone, place)
INNER JOIN users AS u ON wanted.phone = u.phone;

-- name: find_users
-- One row for each user of the ids $1, in no order.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, TRUE AS live
FROM users AS u
WHERE u.id = any($1::uuid[]);

-- name: create_user
-- Store the user $1 with wallet $2, phone $3, name $4 and a new principal for the user's events. No row comes back when
-- the phone has a user.
WITH principal AS (
    INSERT INTO principals (name) SELECT 'user:' || $1::uuid
    WHERE NOT EXISTS (SELECT FROM users WHERE phone = $3)
    RETURNING id
)

INSERT INTO users (id, principal_id, wallet_id, phone, name)
SELECT $1 AS user_id, principal.id AS principal_id, $2 AS wallet_id, $3 AS phone, $4 AS name FROM principal
ON CONFLICT (phone) DO NOTHING
RETURNING id, principal_id, created_at;
