-- name: old_users
-- From the source: each user with the wallet and, for a merchant, the fee.
SELECT
    u.id, u.phone, u.username, u.password_hash, u.name, u.is_merchant, u.is_agent, u.merchant_status, u.kyc_level,
    u.kyc_status, u.created_at, w.id AS wallet_id, w.balance_cents, w.currency_code, m.fee_bps,
    m.created_at AS merchant_since
FROM users AS u
LEFT JOIN wallets AS w ON u.id = w.user_id
LEFT JOIN merchants AS m ON u.id = m.user_id
ORDER BY u.created_at, u.id;

-- name: old_wrong_balances
-- From the source: the wallets whose balance is not the sum of their entries.
SELECT
    w.id, w.balance_cents, coalesce(sum(e.amount_cents_signed), 0) AS entries
FROM wallets AS w
LEFT JOIN ledger_entries AS e ON w.id = e.wallet_id
GROUP BY w.id, w.balance_cents
HAVING w.balance_cents <> coalesce(sum(e.amount_cents_signed), 0)
ORDER BY w.id;

-- name: old_totals
-- From the source: the sum of all wallets in each currency.
SELECT
    w.currency_code, sum(w.balance_cents) AS balance
FROM wallets AS w
GROUP BY w.currency_code
ORDER BY w.currency_code;

-- name: old_merchant_keys
-- From the source: merchants' API keys with their secrets.
SELECT
    k.key_id, k.user_id, k.secret, k.scope, k.created_at
FROM merchant_api_keys AS k
ORDER BY k.id;

-- name: old_endpoints
-- From the source: webhook endpoints with their secrets.
SELECT
    e.id, e.user_id, e.url, e.secret, e.active, e.created_at
FROM webhook_endpoints AS e
ORDER BY e.id;

-- name: old_passkeys
-- From the source: passkeys.
SELECT
    p.credential_id, p.user_id, p.public_key, p.sign_count, p.created_at
FROM passkey_credentials AS p
ORDER BY p.id;

-- name: old_requests
-- From the source: payment requests that nobody has answered.
SELECT
    r.id, r.requester_user_id, r.target_user_id, r.amount_cents, r.currency_code, r.created_at, r.expires_at,
    r.metadata_json
FROM payment_requests AS r
WHERE r.status = 'pending'
ORDER BY r.id;

-- name: old_invoices
-- From the source: invoices that are not paid.
SELECT
    i.id, i.issuer_user_id, i.payer_user_id, i.amount_cents, i.currency_code, i.reference, i.description, i.due_at,
    i.created_at
FROM invoices AS i
WHERE i.status = 'pending'
ORDER BY i.id;

-- name: old_links
-- From the source: links that can be paid.
SELECT
    l.id, l.user_id, l.code, l.amount_cents, l.currency_code, l.mode, l.expires_at, l.created_at
FROM payment_links AS l
WHERE l.status = 'active'
ORDER BY l.id;

-- name: old_qr_codes
-- From the source: QR codes that can be paid, with the user of their merchant.
SELECT
    q.id, m.user_id, q.code, q.amount_cents, q.currency_code, q.mode, q.expires_at, q.created_at
FROM qr_codes AS q
INNER JOIN merchants AS m ON q.merchant_id = m.id
WHERE q.status = 'active'
ORDER BY q.id;

-- name: old_mandates
-- From the source: mandates.
SELECT
    m.id, m.payer_user_id, m.issuer_user_id, m.autopay, m.max_amount_cents, m.status, m.created_at, m.updated_at
FROM ebill_mandates AS m
ORDER BY m.id;

-- name: old_subscriptions
-- From the source: subscriptions that go on.
SELECT
    s.id, s.payer_user_id, s.merchant_user_id, s.amount_cents, s.currency_code, s.interval_days, s.next_charge_at,
    s.created_at, s.updated_at
FROM subscriptions AS s
WHERE s.status = 'active'
ORDER BY s.id;

-- name: old_vouchers
-- From the source: vouchers that nobody has redeemed.
SELECT
    v.id, v.code, v.amount_cents, v.currency_code, v.created_by_user_id
FROM topup_vouchers AS v
WHERE v.status = 'active'
ORDER BY v.id;

-- name: old_cash_requests
-- From the source: cash requests that are under way.
SELECT
    c.id, c.type, c.user_id, c.amount_cents
FROM cash_requests AS c
WHERE c.status = 'pending'
ORDER BY c.id;

-- name: old_transfer_keys
-- From the source: the idempotency keys of transfers, with the users on both sides; a top-up has none who pays.
SELECT
    t.id, t.idempotency_key, payer.user_id AS payer_id, payee.user_id AS payee_id, t.created_at
FROM transfers AS t
LEFT JOIN wallets AS payer ON t.from_wallet_id = payer.id
LEFT JOIN wallets AS payee ON t.to_wallet_id = payee.id
WHERE t.idempotency_key IS NOT NULL
ORDER BY t.id;

-- name: import_user
-- Store a user under the ids that it had: id, wallet, phone, username, password hash, name, merchant, agent, merchant
-- status, fee, since, KYC level, KYC status, created, phone proven. No row comes back where the id or phone is taken.
WITH principal AS (
    INSERT INTO principals (name) SELECT 'user:' || $1::uuid
    WHERE NOT EXISTS (SELECT FROM users WHERE id = $1 OR phone = $3)
    RETURNING id
)

INSERT INTO users (
    id, principal_id, wallet_id, phone, username, password_hash, name, is_merchant, is_agent, merchant_status,
    merchant_fee_bps, merchant_since, kyc_level, kyc_status, created_at, phone_proven_at
)
SELECT
    $1 AS id, principal.id AS principal_id, $2 AS wallet_id, $3 AS phone, $4 AS username, $5 AS password_hash,
    $6 AS name, $7 AS is_merchant, $8 AS is_agent, $9 AS merchant_status, $10 AS merchant_fee_bps,
    $11 AS merchant_since, $12 AS kyc_level, $13 AS kyc_status, $14 AS created_at, $15 AS phone_proven_at
FROM principal
RETURNING principal_id;

-- name: find_imported_user
-- The user of the id $1: principal, wallet, merchant or not.
SELECT u.principal_id, u.wallet_id, u.is_merchant
FROM users AS u
WHERE u.id = $1;

-- name: opened_balance
-- The money that wallets in the currency of the account $1 have been opened with.
SELECT -a.balance AS opened
FROM accounts AS a
WHERE a.code = $1;

-- name: opening_posted
-- Whether the opening entry of the id $1 was posted.
SELECT TRUE AS posted FROM keys AS k
WHERE k.id = $1;

-- name: username_taken
-- Whether another user than $2 has the username $1, in any case.
SELECT TRUE AS taken FROM users AS u
WHERE lower(u.username) = lower($1) AND u.id <> $2;

-- name: import_merchant_key
-- Store a merchant's key: id, user, sealed secret, scope, created. No row comes back where it is known.
INSERT INTO merchant_api_keys (key_id, user_id, sealed_secret, scope, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (key_id) DO NOTHING
RETURNING key_id;

-- name: import_endpoint
-- Store an endpoint: id, principal, URL, types, sealed secrets, active or not, created. No row where it is known.
INSERT INTO webhook_endpoints (
    id, principal_id, url, event_types, secrets, created_at, disabled_at, disabled_reason
)
VALUES (
    $1, $2, $3, $4, $5, $7, CASE WHEN NOT $6::boolean THEN clock_timestamp() END,
    CASE WHEN NOT $6 THEN 'by_owner' END
)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: import_passkey
-- Store a passkey: credential, user, key, count, created. No row where it is known.
INSERT INTO passkeys (credential_id, user_id, public_key, sign_count, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (credential_id) DO NOTHING
RETURNING user_id;

-- name: import_payable
-- Store an open payable: id, kind, code, payee, payer, amount, currency, reusable, expires, due, details, created. No
-- row where it is known.
INSERT INTO payables (
    id, kind, code, payee_id, payer_id, amount, currency, reusable, expires_at, due_at, details, created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12, $12)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: import_mandate
-- Store a mandate: id, payer, issuer, autopay, most of one invoice, state, created, updated. No row where it is known.
INSERT INTO mandates (id, payer_id, issuer_id, autopay, max_amount, state, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: import_subscription
-- Store a subscription: id, payer, merchant, amount, currency, interval, next charge, created, updated.
INSERT INTO subscriptions (
    id, payer_id, merchant_id, amount, currency, interval_days, next_charge_at, try_at, created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: import_key
-- Let the key $1 be used: a call under it is refused as a repetition of something else. No row where it is known.
WITH taken AS (
    INSERT INTO keys (id, no, fingerprint, fields)
    VALUES ($1, NULL, 0, 0)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)

INSERT INTO refusals (id, outcome, refused_at)
SELECT
    t.id, $2 AS outcome, $3 AS refused_at
FROM taken AS t
RETURNING id;
