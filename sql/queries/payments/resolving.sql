-- name: list_payments
-- Up to $5 payments in one of the states $1, of the surface $2, made before $3, with ids below $4 (null: any), newest
-- first. A payment is also in the state unknown while one of its attempts is, and then the attempt's time counts, as in
-- the statement payments_waiting that an alert comes from: an attempt may be younger than its payment, and unknown
-- beside another that was paid.
WITH own AS (
    SELECT p.id FROM payments AS p
    WHERE
        -- The first condition spares the reading of payments where unknown is the only state.
        ($1::text[] IS NULL OR array_remove($1, 'unknown') <> '{}')
        AND ($1::text[] IS NULL OR p.state = any(array_remove($1, 'unknown')))
        AND ($2::text IS NULL OR p.surface = $2)
        AND ($3::timestamptz IS NULL OR p.created_at < $3)
        AND ($4::uuid IS NULL OR p.id < $4)
    ORDER BY p.id DESC
    LIMIT $5
),

unclear AS (
    SELECT DISTINCT p.id FROM payment_attempts AS a
    INNER JOIN payments AS p ON a.payment_id = p.id
    WHERE
        a.state = 'unknown'
        AND ($1::text[] IS NULL OR 'unknown' = any($1))
        AND ($2::text IS NULL OR p.surface = $2)
        AND ($3::timestamptz IS NULL OR a.created_at < $3)
        AND ($4::uuid IS NULL OR p.id < $4)
    ORDER BY p.id DESC
    LIMIT $5
),

found AS (
    SELECT own.id FROM own
    UNION
    SELECT unclear.id FROM unclear
)

SELECT
    p.id, p.surface, p.caller, p.request_id, p.state, p.amount, p.scale, p.currency, p.paid, p.refunded, p.created_at,
    p.updated_at
FROM payments AS p
INNER JOIN found ON p.id = found.id
ORDER BY p.id DESC
LIMIT $5;

-- name: waiting_refunds
-- Up to $2 refunds that wait for a person, with ids below $1 (null: any), newest first: payment_id, request_id. Their
-- end is not known; or they were to give back the money of a code that could not be paid, and the latest has failed.
SELECT r.payment_id, r.request_id FROM payment_refunds AS r
WHERE
    ($1::uuid IS NULL OR r.id < $1)
    AND (
        r.state = 'unknown'
        OR (
            r.state = 'failed'
            AND starts_with(r.request_id, 'code_not_payable')
            AND EXISTS (
                SELECT 1 FROM payments AS p
                INNER JOIN payment_attempts AS a ON p.id = a.payment_id
                WHERE
                    p.id = r.payment_id AND p.surface = 'codes' AND a.id = r.attempt_id
                    AND a.received > a.refunded + a.disputed
            )
            AND NOT EXISTS (
                SELECT 1 FROM payment_refunds AS later
                WHERE later.payment_id = r.payment_id AND later.id > r.id
            )
        )
    )
ORDER BY r.id DESC
LIMIT $2;
