-- name: upsert_mandate
-- Store the mandate of payer $2 for issuer $3, under the id $1 if it is new, and return it; a revoked mandate becomes
-- active again. The cap of a known mandate ($6 a period $7) changes where $8, its notice ($9) where that is not null.
INSERT INTO mandates AS m (id, payer_id, issuer_id, autopay, max_amount, period_max, period, notice_hours)
VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($9, 0))
ON CONFLICT (payer_id, issuer_id) DO UPDATE
    SET
        autopay = excluded.autopay, max_amount = excluded.max_amount, state = 'active', updated_at = clock_timestamp(),
        period_max = CASE WHEN $8::boolean THEN excluded.period_max ELSE m.period_max END,
        period = CASE WHEN $8 THEN excluded.period ELSE m.period END,
        notice_hours = coalesce($9, m.notice_hours)
RETURNING
    m.id, m.payer_id, m.issuer_id, m.autopay, m.max_amount, m.state, m.created_at, m.updated_at, m.period,
    m.period_max, m.notice_hours,
    CASE
        WHEN m.period_start = date_trunc(m.period, clock_timestamp(), 'UTC') THEN m.period_spent ELSE 0
    END AS period_spent;

-- name: mandates_of
-- The newest $2 mandates of the payer $1, with the phone of the issuer: in the state $3, for the phone $4, before the
-- mandate $5, each unless null.
SELECT
    m.id, m.payer_id, m.issuer_id, issuer.phone AS issuer_phone, m.autopay, m.max_amount, m.state, m.created_at,
    m.updated_at, m.period, m.period_max, m.notice_hours,
    CASE
        WHEN m.period_start = date_trunc(m.period, clock_timestamp(), 'UTC') THEN m.period_spent ELSE 0
    END AS period_spent
FROM mandates AS m
INNER JOIN users AS issuer ON m.issuer_id = issuer.id
WHERE
    m.payer_id = $1 AND ($3::text IS NULL OR m.state = $3) AND ($4::text IS NULL OR issuer.phone = $4)
    AND (m.created_at, m.id) < (
        CASE
            WHEN $5::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM mandates AS b WHERE b.id = $5)
        END,
        coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY m.created_at DESC, m.id DESC
LIMIT $2;

-- name: find_mandate
-- One row: payer and issuer of the mandate $1.
SELECT payer_id, issuer_id FROM mandates WHERE id = $1;

-- name: revoke_mandate
-- Revoke the mandate $1; no row comes back when it is revoked already.
UPDATE mandates SET state = 'revoked', updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active'
RETURNING id;
