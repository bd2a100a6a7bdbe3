-- name: payables_wanted
-- One row for each payable of the ids $1 or, where the id is null, the codes $2: place, and the payable. `expired` is
-- true for a payable that is open though its time is over.
SELECT
    wanted.place, p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state,
    p.expires_at, p.due_at, p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at,
    p.updated_at, p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) WITH ORDINALITY AS wanted (id, code, place)
INNER JOIN payables AS p ON wanted.id = p.id OR wanted.code = p.code;

-- name: payables_to_pay
-- Rows as in payables_wanted, and after `expired` the payee, all null where there is none.
SELECT
    wanted.place, p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state,
    p.expires_at, p.due_at, p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at,
    p.updated_at, p.fingerprint, p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.id AS payee_user_id, payee.principal_id, payee.wallet_id, payee.phone, payee.username, payee.name,
    payee.is_merchant, payee.is_agent, payee.merchant_status, payee.merchant_fee_bps, payee.merchant_since,
    payee.kyc_level, payee.kyc_status, payee.created_at AS payee_created_at, payee.tokens_valid_from,
    payee.phone_proven_at
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) WITH ORDINALITY AS wanted (id, code, place)
INNER JOIN payables AS p ON wanted.id = p.id OR wanted.code = p.code
LEFT JOIN users AS payee ON p.payee_id = payee.id;

-- name: payers_and_payables
-- One row for each user of the ids $1 with the sign-ins $2: place, the user as in users_by_id, and the payable of the
-- code in $3 with its payee as in payables_to_pay, all null where there is none.
SELECT
    wanted.place, u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at,
    wanted.session_id IS NULL OR (s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > now()) AS live,
    p.id AS payable_id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state,
    p.expires_at, p.due_at, p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by,
    p.created_at AS payable_created_at, p.updated_at, p.fingerprint,
    p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired,
    payee.id AS payee_user_id, payee.principal_id AS payee_principal_id, payee.wallet_id AS payee_wallet_id,
    payee.phone AS payee_phone, payee.username AS payee_username, payee.name AS payee_name,
    payee.is_merchant AS payee_is_merchant, payee.is_agent AS payee_is_agent,
    payee.merchant_status AS payee_merchant_status, payee.merchant_fee_bps AS payee_fee_bps,
    payee.merchant_since AS payee_since, payee.kyc_level AS payee_kyc_level, payee.kyc_status AS payee_kyc_status,
    payee.created_at AS payee_created_at, payee.tokens_valid_from AS payee_tokens_valid_from,
    payee.phone_proven_at AS payee_phone_proven_at
FROM
    unnest((SELECT $1::uuid[]), (SELECT $2::uuid[]), (SELECT $3::text[])) WITH ORDINALITY
        AS wanted (user_id, session_id, code, place)
INNER JOIN users AS u ON wanted.user_id = u.id
LEFT JOIN sessions AS s ON wanted.session_id = s.id
LEFT JOIN payables AS p ON wanted.code = p.code
LEFT JOIN users AS payee ON p.payee_id = payee.id;

-- name: create_payable
-- Store a payable and return its id, times and code; no row comes back where the request key is taken. It ends $15 from
-- now, and is due $16 from now: spans go by this clock, which also decides when they are over.
INSERT INTO payables (
    id, kind, code, payee_id, payer_id, amount, currency, reusable, expires_at, due_at, request_key, fingerprint,
    details, hold_id, agent_id
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, coalesce(clock_timestamp() + $15::interval, $9),
    coalesce(clock_timestamp() + $16::interval, $10), $11, $12, $13::text::jsonb, $14, $17
)
ON CONFLICT (request_key) DO NOTHING
RETURNING id, created_at, code, expires_at;

-- name: payable_by_request_key
-- The payable of the request key $1: id, fingerprint, created_at, code, expires_at.
SELECT id, fingerprint, created_at, code, expires_at FROM payables WHERE request_key = $1;

-- name: end_payable
-- End the open payable $1 in the state $2, by user $3; no row comes back where it has ended or its time is over.
UPDATE payables SET state = $2, settled_by = $3, updated_at = clock_timestamp()
WHERE id = $1 AND state = 'open' AND (expires_at > clock_timestamp() OR expires_at IS NULL)
RETURNING id;
