-- name: codes_of
-- The newest $3 codes of the kind $2 that the user $1 has made, newest first: in the state $4, before the code of id
-- $5, each unless null; columns as in payables_wanted.
SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.fingerprint,
    p.state = 'open' AND p.expires_at <= clock_timestamp() AS expired
FROM payables AS p
WHERE
    p.payee_id = $1 AND p.kind = $2
    AND ($4::text IS NULL OR $4 = CASE
        WHEN p.state = 'open' AND p.expires_at <= clock_timestamp() THEN 'expired' ELSE p.state
    END)
    AND (p.created_at, p.id) < (
        CASE
            WHEN $5::uuid IS NULL THEN 'infinity'
            ELSE (SELECT b.created_at FROM payables AS b WHERE b.id = $5)
        END,
        coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )
ORDER BY p.created_at DESC, p.id DESC
LIMIT $3;

-- name: account_states
-- Rows of the accounts of the codes $1: code, state. An unknown code has no row.
SELECT code, state FROM accounts WHERE code = any((SELECT $1::text[])::text[]);
