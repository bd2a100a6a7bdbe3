-- name: issue_vouchers
-- Store vouchers of ids $1 and codes $2, each over $4 minor units of $5, made by user $3, with details $6. Each stored
-- voucher comes back as id, code, created_at; no row comes back for ids that are there already.
INSERT INTO payables (id, kind, code, payer_id, amount, currency, details)
SELECT
    i.id, 'voucher' AS kind, i.code, $3 AS payer_id, $4 AS amount, $5 AS currency,
    $6::text::jsonb AS details
FROM unnest($1::uuid[], $2::text[]) AS i (id, code)
ON CONFLICT (id) DO NOTHING
RETURNING id, code, created_at;

-- name: vouchers_issued
-- The vouchers of ids $1, in the order in which they were made: id, code, created_at.
SELECT p.id, p.code, p.created_at FROM payables AS p
WHERE p.id = any((SELECT $1::uuid[])::uuid[])
ORDER BY p.created_at, p.id;

-- name: vouchers_of_code
-- Up to two vouchers whose codes read like $2 (`core.payables.codes.as_typed`), that of the code $1 first, with the
-- columns of the user who made it (as users.sql has them).
SELECT
    p.id AS voucher_id, p.code, p.amount, p.currency, p.state, p.details::text AS details,
    p.created_at AS issued_at,
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent,
    u.merchant_status, u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at,
    u.tokens_valid_from, u.phone_proven_at, TRUE AS live
FROM payables AS p
INNER JOIN users AS u ON p.payer_id = u.id
WHERE p.kind = 'voucher' AND translate(lower(p.code), 'oil-_', '011') = $2
ORDER BY p.code <> $1
LIMIT 2;

-- name: vouchers_of
-- The $2 newest vouchers that user $1 has made, newest first: in the state $3, before the voucher $4, each unless
-- null.
SELECT
    p.id, p.code, p.amount, p.currency, p.state, p.created_at, b.recorded_at AS redeemed_at,
    NULL AS created_by_phone, NULL AS redeemed_by_phone
FROM payables AS p
LEFT JOIN keys AS k ON p.transfer_id = k.id
LEFT JOIN batches AS b ON b.seq = batch_of(k.no)
WHERE
    p.payer_id = $1 AND p.kind = 'voucher' AND ($3::text IS NULL OR p.state = $3)
    AND (p.created_at, p.id) < (
        CASE
            WHEN $4::uuid IS NULL THEN 'infinity'
            ELSE (SELECT v.created_at FROM payables AS v WHERE v.id = $4)
        END,
        coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY p.created_at DESC, p.id DESC
LIMIT $2;

-- name: vouchers_page
-- A page of $6 vouchers before (created_at $1, id $2), newest first; narrowed to state $3, codes that begin with $4
-- and creator $5 where they are not null.
SELECT
    p.id, p.code, p.amount, p.currency, p.state, p.created_at, b.recorded_at AS redeemed_at,
    maker.phone AS created_by_phone, taker.phone AS redeemed_by_phone
FROM payables AS p
INNER JOIN users AS maker ON p.payer_id = maker.id
LEFT JOIN users AS taker ON p.state = 'paid' AND p.settled_by = taker.id
LEFT JOIN keys AS k ON p.transfer_id = k.id
LEFT JOIN batches AS b ON b.seq = batch_of(k.no)
WHERE
    p.kind = 'voucher' AND (p.created_at, p.id) < ($1::timestamptz, $2::uuid)
    AND ($3::text IS NULL OR p.state = $3)
    AND ($4::text IS NULL OR starts_with(p.code, $4))
    AND ($5::uuid IS NULL OR p.payer_id = $5)
ORDER BY p.created_at DESC, p.id DESC
LIMIT $6;

-- name: voucher_summary
-- One row: the numbers of vouchers by state, their worth and their fees in minor units, of all creators or, where $1 is
-- not null, of one. The fee is the fourth leg of a redemption.
SELECT
    count(*) AS total_count,
    count(*) FILTER (WHERE p.state = 'open') AS active_count,
    count(*) FILTER (WHERE p.state = 'paid') AS redeemed_count,
    count(*) FILTER (WHERE p.state = 'canceled') AS revoked_count,
    coalesce(sum(p.amount), 0) AS total,
    coalesce(sum(p.amount) FILTER (WHERE p.state = 'paid'), 0) AS redeemed_total,
    coalesce(sum(e.amount), 0) AS fees
FROM payables AS p
LEFT JOIN keys AS k ON p.transfer_id = k.id
LEFT JOIN entries AS e ON batch_of(e.no) = batch_of(k.no) AND e.no = k.no + 3
WHERE p.kind = 'voucher' AND ($1::uuid IS NULL OR p.payer_id = $1);

-- name: voucher_fees
-- The $2 newest fees of redemptions (transfers of kind $1), newest first: transfer_id, code, amount, recorded_at.
SELECT t.id AS transfer_id, p.code, e.amount, b.recorded_at
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
INNER JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND e.no = t.no + 3
INNER JOIN payables AS p ON t.id = p.transfer_id
WHERE t.kind = $1
ORDER BY batch_of(t.no) DESC, t.no DESC
LIMIT $2;
