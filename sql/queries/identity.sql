-- name: open_session
-- Store the sign-in $1 of user $2, from the client $3, for $4 seconds. $5 and $6 are the hashes of its refresh token's
-- own secret and of its family's; null without one. No row comes back.
INSERT INTO sessions (id, user_id, client, expires_at, refresh_hash, family_hash)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), $5, $6);

-- name: rotate_refresh
-- One row when the sign-in $1 is live and its family's hash is $2: the user, and `live`. Where the newest token's hash
-- is $3 it is $4 from now on, for $5 seconds; another one was used before, which ends the sign-in.
UPDATE sessions AS s SET
    refresh_hash = CASE WHEN s.refresh_hash = $3 THEN $4 ELSE s.refresh_hash END,
    revoked_at = CASE WHEN s.refresh_hash = $3 THEN NULL ELSE clock_timestamp() END,
    used_at = clock_timestamp(),
    expires_at = CASE
        WHEN s.refresh_hash = $3 THEN clock_timestamp() + make_interval(secs => $5) ELSE s.expires_at
    END
WHERE s.id = $1 AND s.family_hash = $2 AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
RETURNING s.user_id, s.revoked_at IS NULL AS live;

-- name: end_session
-- End the sign-in $1 of user $2, and return its id; no row for one that is not there or was ended.
UPDATE sessions SET revoked_at = clock_timestamp()
WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL
RETURNING id;

-- name: end_older_tokens
-- From now on tokens of user $1 that name no sign-in count for nothing if they were issued before. No row comes back.
UPDATE users SET tokens_valid_from = clock_timestamp() WHERE id = $1;

-- name: end_all_sessions
-- End every sign-in of user $1; the number of rows is how many there were.
UPDATE sessions SET revoked_at = clock_timestamp()
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp();

-- name: sessions_of_user
-- The live sign-ins of user $1, newest first, $2 at most: id, client, created_at, used_at, expires_at.
SELECT id, client, created_at, used_at, expires_at
FROM sessions
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
ORDER BY created_at DESC, id DESC
LIMIT $2;

-- name: credentials_of
-- One row for the username $1, in any case: the user's id and the hash of the password.
SELECT id, password_hash FROM users WHERE lower(username) = lower($1::text);

-- name: set_credentials
-- Give user $1 the username $2 and the hash of a password $3. No row comes back.
UPDATE users SET username = $2, password_hash = $3 WHERE id = $1;

-- name: renew_hash
-- Store a stronger hash $3 of the password of user $1, unless it is $2 no longer. No row comes back.
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

-- name: find_passkey
-- One row for the credential $1: user_id, public_key, sign_count.
SELECT user_id, public_key, sign_count FROM passkeys WHERE credential_id = $1;

-- name: add_passkey
-- Store the credential $1 of user $2 with its public key $3 and its count $4, and return the id; no row where it is
-- known, or the user has $5 of them.
INSERT INTO passkeys (credential_id, user_id, public_key, sign_count)
SELECT $1 AS credential_id, $2 AS user_id, $3 AS public_key, $4 AS sign_count
WHERE (SELECT count(*) FROM passkeys AS p WHERE p.user_id = $2) < $5
ON CONFLICT (credential_id) DO NOTHING
RETURNING credential_id;

-- name: use_passkey
-- Store the count $2 of a use of the credential $1, and return the id. No row where a use since was counted as high:
-- then there are two of it. Authenticators that do not count say 0 for ever.
UPDATE passkeys SET sign_count = $2, used_at = clock_timestamp()
WHERE credential_id = $1 AND (sign_count < $2 OR (sign_count = 0 AND $2 = sign_count))
RETURNING credential_id;

-- name: prove_phone
-- The phone of user $1 is proven from now on. A row comes back for the first time: `registered` tells whether somebody
-- had put a password on the phone before, which counts no more.
UPDATE users AS u SET phone_proven_at = clock_timestamp(), username = NULL, password_hash = NULL
FROM (SELECT password_hash IS NOT NULL AS registered FROM users WHERE id = $1) AS was
WHERE u.id = $1 AND u.phone_proven_at IS NULL
RETURNING was.registered;

-- name: forget_unproven
-- Take back what somebody who never had the phone of user $1 may have left to come back by: passkeys, and what pays by
-- itself. No row comes back.
WITH passkey AS (DELETE FROM passkeys WHERE user_id = $1),

mandate AS (
    UPDATE mandates SET state = 'revoked', updated_at = clock_timestamp() WHERE payer_id = $1 AND state = 'active'
)

UPDATE subscriptions SET state = 'canceled', updated_at = clock_timestamp()
WHERE payer_id = $1 AND state <> 'canceled';
