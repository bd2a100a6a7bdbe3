-- name: find_passkey
-- One row for the credential $1: user_id, public_key, sign_count.
SELECT user_id, public_key, sign_count FROM passkeys WHERE credential_id = $1;

-- name: lock_signed_in
-- Lock user $1 and return the id; no row where all sign-ins were ended since tokens were valid from $2.
SELECT id FROM users WHERE id = $1 AND tokens_valid_from IS NOT DISTINCT FROM $2 FOR NO KEY UPDATE;

-- name: add_passkey
-- Store the credential $1 of user $2 with its public key $3 and its count $4, and return the id; no row where the
-- credential is known, or the user has $5 credentials.
INSERT INTO passkeys (credential_id, user_id, public_key, sign_count)
SELECT $1 AS credential_id, $2 AS user_id, $3 AS public_key, $4 AS sign_count
WHERE (SELECT count(*) FROM passkeys AS p WHERE p.user_id = $2) < $5
ON CONFLICT (credential_id) DO NOTHING
RETURNING credential_id;

-- name: passkeys_of
-- The passkeys of user $1, newest first: credential_id, created_at, used_at.
SELECT credential_id, created_at, used_at FROM passkeys WHERE user_id = $1
ORDER BY created_at DESC, credential_id DESC;

-- name: remove_passkey
-- Remove the credential $1 of user $2 and return its id; no row for an unknown one, or somebody else's.
DELETE FROM passkeys WHERE credential_id = $1 AND user_id = $2
RETURNING credential_id;

-- name: use_passkey
-- Store the count $2 of a use of the credential $1, and return the id. No row where a use has counted as high before,
-- because then the credential exists twice. Authenticators that do not count say 0 for ever.
UPDATE passkeys SET sign_count = $2, used_at = clock_timestamp()
WHERE credential_id = $1 AND (sign_count < $2 OR (sign_count = 0 AND $2 = sign_count))
RETURNING credential_id;
