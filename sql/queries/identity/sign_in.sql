-- name: credentials_of
-- One row for a username, in any case: the user's id and the hash of the password. $1 is the username as it was typed,
-- which is how older rows have it, and $2 in its prepared form.
SELECT id, password_hash FROM users
WHERE lower(username) = any(ARRAY[lower($1::text), lower($2::text)])
ORDER BY lower(username) = lower($1::text) DESC
LIMIT 1;

-- name: set_credentials
-- Give user $1 the username $2 and the hash of a password $3. No row comes back.
UPDATE users SET username = $2, password_hash = $3 WHERE id = $1;

-- name: renew_hash
-- Store a stronger hash $3 of the password of user $1, if its hash is still $2. No row comes back.
UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2;

-- name: reset_dev_state
-- Take back the KYC and merchant state of user $1, and return the id if there was any (development).
UPDATE users SET
    kyc_level = 0, kyc_status = 'none', is_merchant = FALSE, merchant_status = 'none', merchant_fee_bps = NULL,
    merchant_since = NULL
WHERE id = $1 AND (kyc_level > 0 OR kyc_status <> 'none' OR is_merchant OR merchant_status <> 'none')
RETURNING id;

-- name: set_dev_role
-- Make user $1 a merchant if $2, an agent if $3, and return the id if that is new (development).
UPDATE users SET
    is_merchant = is_merchant OR $2,
    merchant_status = CASE WHEN $2 THEN 'approved' ELSE merchant_status END,
    merchant_since = CASE WHEN $2 THEN coalesce(merchant_since, clock_timestamp()) ELSE merchant_since END,
    is_agent = is_agent OR $3
WHERE id = $1 AND (($2 AND NOT (is_merchant AND merchant_status = 'approved')) OR ($3 AND NOT is_agent))
RETURNING id;

-- name: prove_phone
-- The phone of user $1 is proven from now on. Only the first time has a row: `registered` tells whether the user had a
-- password before, which counts no more, nor does the name that came with it.
UPDATE users AS u SET
    phone_proven_at = clock_timestamp(), username = NULL, password_hash = NULL,
    name = CASE WHEN was.registered THEN NULL ELSE u.name END
FROM (SELECT password_hash IS NOT NULL AS registered FROM users WHERE id = $1) AS was
WHERE u.id = $1 AND u.phone_proven_at IS NULL
RETURNING was.registered;

-- name: forget_unproven
-- Take back all by which a stranger to the phone of user $1 could come back, listen or speak: passkeys, merchant keys,
-- endpoints, mandates, subscriptions, blocks, and what is open to be paid to the user. No row comes back.
WITH passkey AS (DELETE FROM passkeys WHERE user_id = $1),

merchant_key AS (
    UPDATE merchant_api_keys SET deleted_at = clock_timestamp() WHERE user_id = $1 AND deleted_at IS NULL
),

endpoint AS (
    UPDATE webhook_endpoints SET deleted_at = clock_timestamp(), revision = revision + 1
    WHERE principal_id = (SELECT u.principal_id FROM users AS u WHERE u.id = $1) AND deleted_at IS NULL
),

mandate AS (
    UPDATE mandates SET state = 'revoked', updated_at = clock_timestamp() WHERE payer_id = $1 AND state = 'active'
),

block AS (DELETE FROM blocked_senders WHERE user_id = $1),

-- In the order in which payments lock them.
asked AS (
    SELECT p.id FROM payables AS p WHERE p.payee_id = $1 AND p.state = 'open' ORDER BY p.id FOR NO KEY UPDATE
),

ended AS (
    UPDATE payables AS p SET state = 'canceled', settled_by = $1, updated_at = clock_timestamp()
    FROM asked
    WHERE asked.id = p.id AND (p.expires_at > clock_timestamp() OR p.expires_at IS NULL)
)

UPDATE subscriptions SET state = 'canceled', updated_at = clock_timestamp()
WHERE payer_id = $1 AND state <> 'canceled';
