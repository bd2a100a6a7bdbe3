-- name: users_by_id
-- One row for each user of the ids $1: place, and the user. $2 are the sign-ins of the tokens, null for a token without
-- one; `live` is false where the sign-in has ended.
SELECT
    wanted.place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at,
    wanted.session_id IS NULL OR (s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > now()) AS live
FROM unnest((SELECT $1::uuid[]), (SELECT $2::uuid[])) WITH ORDINALITY AS wanted (user_id, session_id, place)
INNER JOIN users AS u ON wanted.user_id = u.id
LEFT JOIN sessions AS s ON wanted.session_id = s.id;

-- name: users_by_phone
-- One row for each user of the phones, each in the spellings $1, $2 and $3: place, and the user. A row that is stored
-- as in $1 comes before one as in $2, since a SIM may have had two wallets before phones had one form.
SELECT DISTINCT ON (wanted.place)
    wanted.place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM
    unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[])) WITH ORDINALITY
        AS wanted (given, normalized, with_trunk, place)
INNER JOIN users AS u ON u.phone = any(ARRAY[wanted.given, wanted.normalized, wanted.with_trunk])
ORDER BY wanted.place, u.phone = wanted.given DESC, u.phone = wanted.normalized DESC;

-- name: find_users
-- One row for each user of the ids $1, in no order.
SELECT
    1 AS place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM users AS u
WHERE u.id = any((SELECT $1::uuid[])::uuid[]);

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
