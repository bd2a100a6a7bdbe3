-- name: invoices_to_autopay
-- Up to $2 due invoices that a mandate covers, longest due first; a failed one is due at the time of its next attempt.
-- The payer has had notice of each. A payer $1 that is not null gets the payer's invoices alone, without notice, and
-- failed ones without the wait.
SELECT p.id, p.payer_id, p.payee_id, coalesce(f.attempts, 0) AS attempts
FROM mandates AS m
INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
LEFT JOIN autopay_failures AS f ON p.id = f.invoice_id
LEFT JOIN autopay_notices AS n ON p.id = n.invoice_id
WHERE
    m.autopay AND m.state = 'active' AND (m.payer_id = $1 OR $1::uuid IS NULL)
    AND p.kind = 'invoice' AND p.state = 'open' AND p.due_at <= now()
    AND p.amount <= coalesce(m.max_amount, p.amount)
    AND ($1::uuid IS NOT NULL OR f.retry_at IS NULL OR f.retry_at <= now())
    AND ($1::uuid IS NOT NULL OR n.pays_at <= now())
ORDER BY coalesce(f.retry_at, p.due_at), p.id
LIMIT $2;

-- name: lock_invoice_to_autopay
-- The invoice $1, locked after the mandate that covers it; no row comes back when the invoice is not due, not covered
-- any more, or locked by a transaction that pays or ends it.
WITH mandate AS (
    SELECT m.id, m.payer_id, m.issuer_id, m.max_amount
    FROM mandates AS m
    WHERE
        m.payer_id = (SELECT asked.payer_id FROM payables AS asked WHERE asked.id = $1)
        AND m.issuer_id = (SELECT asked.payee_id FROM payables AS asked WHERE asked.id = $1)
        AND m.autopay AND m.state = 'active'
    FOR NO KEY UPDATE OF m
)

SELECT
    p.id, p.kind, p.code, p.payee_id, p.payer_id, p.amount, p.currency, p.reusable, p.state, p.expires_at, p.due_at,
    p.details::text AS details, p.transfer_id, p.hold_id, p.settled_by, p.created_at, p.updated_at, p.request_key,
    p.fingerprint, FALSE AS expired, mandate.id AS mandate_id
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

-- name: spend_of_mandate
-- Count $2 minor units as paid by the mandate $1 in this period; no row comes back where its cap forbids that. The
-- caller holds the mandate's lock.
UPDATE mandates AS m
SET
    period_start = date_trunc(m.period, clock_timestamp(), 'UTC'),
    period_spent = CASE
        WHEN m.period_start = date_trunc(m.period, clock_timestamp(), 'UTC') THEN m.period_spent ELSE 0
    END + $2
WHERE
    m.id = $1
    AND (
        m.period_max IS NULL
        OR CASE
            WHEN m.period_start = date_trunc(m.period, clock_timestamp(), 'UTC') THEN m.period_spent ELSE 0
        END <= m.period_max - $2::bigint
    )
RETURNING m.id;

-- name: give_notices
-- Note that the payers of up to $1 invoices are told, each with the time from which on its mandate may pay it: not
-- before it is due, nor before the mandate's notice or $2 hours are over. Notice is given $3 hours before an invoice is
-- due, or as soon as it is there.
WITH noticed AS (
    INSERT INTO autopay_notices (invoice_id, pays_at)
    SELECT
        p.id AS invoice_id,
        greatest(
            p.due_at, clock_timestamp() + make_interval(hours => greatest(m.notice_hours, $2::integer))
        ) AS pays_at
    FROM mandates AS m
    INNER JOIN payables AS p ON m.payer_id = p.payer_id AND m.issuer_id = p.payee_id
    WHERE
        m.autopay AND m.state = 'active' AND p.kind = 'invoice' AND p.state = 'open'
        AND p.amount <= coalesce(m.max_amount, p.amount)
        AND p.due_at <= clock_timestamp() + make_interval(hours => greatest(m.notice_hours, $2::integer, $3::integer))
        AND NOT EXISTS (SELECT FROM autopay_notices AS n WHERE n.invoice_id = p.id)
    ORDER BY p.due_at, p.id
    LIMIT $1
    ON CONFLICT (invoice_id) DO NOTHING
    RETURNING invoice_id, pays_at
)

SELECT p.id, p.payer_id, p.payee_id, p.amount, noticed.pays_at
FROM noticed
INNER JOIN payables AS p ON noticed.invoice_id = p.id;
