-- name: upsert_mandate
-- Store the mandate of payer $2 for issuer $3, under the id $1 if it is new, and return it; a revoked mandate becomes
-- active again.
INSERT INTO mandates AS m (id, payer_id, issuer_id, autopay, max_amount)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (payer_id, issuer_id) DO UPDATE
    SET autopay = excluded.autopay, max_amount = excluded.max_amount, state = 'active', updated_at = clock_timestamp()
RETURNING m.id, m.payer_id, m.issuer_id, m.autopay, m.max_amount, m.state, m.created_at, m.updated_at;

-- name: mandates_of
-- The newest $2 mandates of the payer $1, with the phone of the issuer.
SELECT
    m.id, m.payer_id, m.issuer_id, issuer.phone AS issuer_phone, m.autopay, m.max_amount, m.state, m.created_at,
    m.updated_at
FROM mandates AS m
INNER JOIN users AS issuer ON m.issuer_id = issuer.id
WHERE m.payer_id = $1
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
