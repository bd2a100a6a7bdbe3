-- name: begin_settlement_day
-- Store the row of the day $1 if there is none. No row comes back.
INSERT INTO settlement_days (day) VALUES ($1) ON CONFLICT (day) DO NOTHING;

-- name: lock_settlement_day
-- Lock the day $1 and return its last merchant; no row when the day is finished, or another process has locked it.
SELECT last_user_id FROM settlement_days WHERE day = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED;

-- name: settlement_merchants
-- Up to $2 merchants with ids above $1, with all columns of a user.
SELECT
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent, u.merchant_status,
    u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at, u.tokens_valid_from,
    u.phone_proven_at, TRUE AS live
FROM users AS u
WHERE u.is_merchant AND u.id > $1
ORDER BY u.id
LIMIT $2;

-- name: write_settlement
-- Store the sales of a merchant on a day. No row comes back.
INSERT INTO settlements (user_id, day, currency, gross, fees, refunds) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (user_id, day) DO NOTHING;

-- name: end_settlement_step
-- Note that the report of the day $1 has come to the merchant $2, and is finished if $3. No row comes back.
UPDATE settlement_days
SET last_user_id = $2, finished_at = CASE WHEN $3 THEN clock_timestamp() END
WHERE day = $1;
