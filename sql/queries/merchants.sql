-- name: enable_merchant
-- The id when user $1 was no merchant, and is one now.
UPDATE users SET is_merchant = TRUE, merchant_since = coalesce(merchant_since, clock_timestamp())
WHERE id = $1 AND NOT is_merchant
RETURNING id;

-- name: apply_as_merchant
-- The id when user $1 has applied just now; nothing when that was done or decided before.
UPDATE users SET merchant_status = 'applied'
WHERE id = $1 AND NOT is_merchant AND kyc_status = 'approved' AND merchant_status IN ('none', 'rejected')
RETURNING id;

-- name: submit_kyc
-- The id when user $1 waits for approval from now on; nothing when that is so already, or approved.
UPDATE users SET kyc_status = 'pending' WHERE id = $1 AND kyc_status IN ('none', 'rejected')
RETURNING id;

-- name: approve_kyc
-- The level of user $1 when the approval changed anything.
UPDATE users SET kyc_status = 'approved', kyc_level = greatest(kyc_level, 1)
WHERE id = $1 AND (kyc_status <> 'approved' OR kyc_level < 1)
RETURNING kyc_level;

-- name: list_merchants
-- Up to $2 merchants with ids above $1, those who were some among them: id, wallet_id.
SELECT id, wallet_id FROM users
WHERE (is_merchant OR merchant_since IS NOT NULL) AND id > $1
ORDER BY id
LIMIT $2;

-- name: statement_span
-- One row: the currency of the account of code $1, and which of its entries were recorded from $2 to $3, both included:
-- the versions above first_after up to last.
SELECT
    a.currency,
    ledger_version_at(a.id, $2::timestamptz - interval '1 microsecond') AS first_after,
    ledger_version_at(a.id, $3::timestamptz) AS last
FROM accounts AS a
WHERE a.code = $1;

-- name: statement_lines
-- The lines of direction $4 on the account of code $1 with versions above $2 up to $3, oldest first: recorded_at,
-- amount, transfer_id.
SELECT l.recorded_at, l.amount, l.transfer_id
FROM merchant_lines($1, $2, $3) AS l
WHERE l.direction = $4
ORDER BY l.version;

-- name: statement_totals
-- One row: the sums of the lines on the account of code $1 with versions above $2 up to $3, 2^62 - 1 at most.
SELECT
    least(coalesce(sum(l.amount) FILTER (WHERE l.direction = 'in'), 0), 4611686018427387903)::bigint AS gross,
    least(coalesce(-sum(l.amount) FILTER (WHERE l.direction = 'fee'), 0), 4611686018427387903)::bigint AS fees,
    least(coalesce(-sum(l.amount) FILTER (WHERE l.direction = 'refund'), 0), 4611686018427387903)::bigint AS refunds
FROM merchant_lines($1, $2, $3) AS l;

-- name: create_merchant_key
-- The time when key $1 of user $2 was stored with the sealed secret $3; nothing when there are $4 already.
INSERT INTO merchant_api_keys (key_id, user_id, sealed_secret)
SELECT $1 AS key_id, $2 AS user_id, $3 AS sealed_secret
WHERE (SELECT count(*) FROM merchant_api_keys WHERE user_id = $2 AND deleted_at IS NULL) < $4
RETURNING created_at;

-- name: list_merchant_keys
-- The living keys of user $1, $2 at most, newest first: key_id, created_at.
SELECT key_id, created_at FROM merchant_api_keys
WHERE user_id = $1 AND deleted_at IS NULL
ORDER BY created_at DESC, key_id DESC
LIMIT $2;

-- name: delete_merchant_key
-- The id when user $2 had a living key $1.
UPDATE merchant_api_keys SET deleted_at = clock_timestamp()
WHERE key_id = $1 AND user_id = $2 AND deleted_at IS NULL
RETURNING key_id;

-- name: find_merchant_key
-- The living key $1: sealed_secret, scope, and its user.
SELECT
    k.sealed_secret, k.scope, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant,
    u.is_agent, u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, TRUE AS live
FROM merchant_api_keys AS k
INNER JOIN users AS u ON k.user_id = u.id
WHERE k.key_id = $1 AND k.deleted_at IS NULL;

-- name: use_signature
-- The digest $1 when it was not used before, remembered for $2 seconds; some that are past their time go.
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

-- name: begin_settlement_day
-- Nothing; afterwards the day $1 has a row.
INSERT INTO settlement_days (day) VALUES ($1) ON CONFLICT (day) DO NOTHING;

-- name: lock_settlement_day
-- The last merchant of the day $1 that was looked at; no row when the day is finished, or another process is at it.
SELECT last_user_id FROM settlement_days WHERE day = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED;

-- name: settlement_merchants
-- Up to $2 merchants with ids above $1, with all that a user has.
SELECT
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent, u.merchant_status,
    u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at, u.tokens_valid_from, TRUE AS live
FROM users AS u
WHERE u.is_merchant AND u.id > $1
ORDER BY u.id
LIMIT $2;

-- name: write_settlement
-- Store what a merchant has sold on a day; no row comes back.
INSERT INTO settlements (user_id, day, currency, gross, fees, refunds) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (user_id, day) DO NOTHING;

-- name: end_settlement_step
-- The day $1 has come to the merchant $2, and is finished if $3. No row comes back.
UPDATE settlement_days
SET last_user_id = $2, finished_at = CASE WHEN $3 THEN clock_timestamp() END
WHERE day = $1;
