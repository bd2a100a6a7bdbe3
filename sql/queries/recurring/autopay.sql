-- name: invoices_to_autopay
-- Up to $2 due invoices that a mandate covers, longest due first; a failed one is due at the time of its next attempt.
-- A payer $1 that is not null gets the payer's invoices alone, failed ones without the wait.
SELECT p.id, p.payer_id, p.payee_id, coalesce(f.attempts, 0) AS attempts
FROM mandates AS m
INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
LEFT JOIN autopay_failures AS f ON p.id = f.invoice_id
WHERE
    m.autopay AND m.state = 'active' AND (m.payer_id = $1 OR $1::uuid IS NULL)
    AND p.kind = 'invoice' AND p.state = 'open' AND p.due_at <= clock_timestamp()
    AND p.amount <= coalesce(m.max_amount, p.amount)
    AND ($1::uuid IS NOT NULL OR f.retry_at IS NULL OR f.retry_at <= clock_timestamp())
ORDER BY coalesce(f.retry_at, p.due_at), p.id
LIMIT $2;

-- name: lock_invoice_to_autopay
-- The invoice $1, locked after the mandate that covers it; no row comes back when the invoice is not due, not covered
-- any more, or locked by a transaction that pays or ends it.
WITH mandate AS (
    SELECT m.payer_id, m.issuer_id, m.max_amount
    FROM mandates AS m
    INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
    WHERE p.id = $1 AND m.autopay AND m.state = 'active'
    FOR SHARE OF m
)

SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, FALSE AS expired
FROM payables AS p
INNER JOIN mandate ON p.payer_id = mandate.payer_id AND p.payee_id = mandate.issuer_id
WHERE
    p.id = $1 AND p.kind = 'invoice' AND p.state = 'open' AND p.due_at <= clock_timestamp()
    AND p.amount <= coalesce(mandate.max_amount, p.amount)
FOR NO KEY UPDATE OF p SKIP LOCKED;

-- name: note_autopay_failure
-- Note a failure of the invoice $1 with the reason $2; the next attempt comes after $3. No row comes back.
INSERT INTO autopay_failures AS f (invoice_id, attempts, retry_at, last_error)
VALUES ($1, 1, clock_timestamp() + $3::interval, left($2, 100))
ON CONFLICT (invoice_id) DO UPDATE
    SET attempts = f.attempts + 1, retry_at = excluded.retry_at, last_error = excluded.last_error;

-- name: forget_autopay_failure
-- Remove the failures of the invoice $1, which was paid or is to be tried at once. No row comes back.
DELETE FROM autopay_failures WHERE invoice_id = $1;

-- name: force_invoice_due
-- Set the due time of the open invoice $1 to a minute ago. No row comes back.
UPDATE payables SET due_at = clock_timestamp() - interval '1 minute', updated_at = clock_timestamp()
WHERE id = $1 AND kind = 'invoice' AND state = 'open';
