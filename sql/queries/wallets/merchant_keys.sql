-- name: create_merchant_key
-- Store the key $1 of user $2 with the sealed secret $3 and return the time; no row comes back when there are $4 keys.
INSERT INTO merchant_api_keys (key_id, user_id, sealed_secret)
SELECT $1 AS key_id, $2 AS user_id, $3 AS sealed_secret
WHERE (SELECT count(*) FROM merchant_api_keys WHERE user_id = $2 AND deleted_at IS NULL) < $4
RETURNING created_at;

-- name: list_merchant_keys
-- The newest $2 keys of user $1 that are not deleted, newest first: key_id, created_at.
SELECT key_id, created_at FROM merchant_api_keys
WHERE user_id = $1 AND deleted_at IS NULL
ORDER BY created_at DESC, key_id DESC
LIMIT $2;

-- name: delete_merchant_key
-- Delete the key $1 of user $2 and return its id; no row comes back for an unknown or deleted key.
UPDATE merchant_api_keys SET deleted_at = clock_timestamp()
WHERE key_id = $1 AND user_id = $2 AND deleted_at IS NULL
RETURNING key_id;

-- name: find_merchant_key
-- The key $1, unless it is deleted: sealed_secret, scope, and its user.
SELECT
    k.sealed_secret, k.scope, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant,
    u.is_agent, u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM merchant_api_keys AS k
INNER JOIN users AS u ON k.user_id = u.id
WHERE k.key_id = $1 AND k.deleted_at IS NULL;

-- name: use_signature
-- Remember the digest $1 for $2 seconds; no row comes back for a used one. Up to 20 digests that are over are removed.
WITH gone AS (
    DELETE FROM merchant_api_signatures
    WHERE
        digest IN (
            SELECT old.digest FROM merchant_api_signatures AS old
            WHERE old.expires_at < clock_timestamp() AND old.digest <> $1
            ORDER BY old.expires_at
            LIMIT 20
            FOR UPDATE SKIP LOCKED
        )
)

INSERT INTO merchant_api_signatures (digest, expires_at)
VALUES ($1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (digest) DO NOTHING
RETURNING digest;

-- name: sealed_merchant_keys
-- Up to $2 keys behind $1 that are not deleted: key_id, sealed_secret.
SELECT key_id, sealed_secret FROM merchant_api_keys
WHERE key_id > $1 AND deleted_at IS NULL
ORDER BY key_id
LIMIT $2;

-- name: reseal_merchant_key
-- Give key $1 the secret $3 in the place of $2, which says the same.
UPDATE merchant_api_keys SET sealed_secret = $3
WHERE key_id = $1 AND sealed_secret = $2;
