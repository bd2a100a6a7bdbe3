-- name: claim_attempts
-- Take up to $2 due attempts of the provider $1 for $3 seconds: id and payment, the longest due first. Attempts that
-- are locked at this moment are left to the next round.
WITH due AS (
    SELECT id, next_look_at FROM payment_attempts
    WHERE provider = $1 AND next_look_at <= now()
    ORDER BY next_look_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),

taken AS (
    UPDATE payment_attempts AS a SET next_look_at = clock_timestamp() + make_interval(secs => $3::double precision)
    FROM due WHERE a.id = due.id
    RETURNING a.id, a.payment_id, due.next_look_at AS due_at
)

SELECT id, payment_id FROM taken
ORDER BY due_at;

-- name: claim_stale_attempts
-- Take attempts as claim_attempts does, and besides those that were not changed for $4 seconds.
WITH due AS (
    SELECT id, next_look_at FROM payment_attempts
    WHERE
        provider = $1 AND next_look_at IS NOT NULL
        AND (
            next_look_at <= now()
            OR (state <> 'created' AND updated_at <= now() - make_interval(secs => $4::double precision))
        )
    ORDER BY next_look_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),

taken AS (
    UPDATE payment_attempts AS a SET next_look_at = clock_timestamp() + make_interval(secs => $3::double precision)
    FROM due WHERE a.id = due.id
    RETURNING a.id, a.payment_id, due.next_look_at AS due_at
)

SELECT id, payment_id FROM taken
ORDER BY due_at;

-- name: attempts_elsewhere
-- The number of attempts that are due, or were not changed for $2 seconds, for each provider that is none of $1.
SELECT provider, count(*) AS attempts FROM payment_attempts
WHERE
    provider <> ALL($1::text[]) AND next_look_at IS NOT NULL
    AND (
        next_look_at <= now()
        OR (state <> 'created' AND updated_at <= now() - make_interval(secs => $2::double precision))
    )
GROUP BY provider
ORDER BY provider;

-- name: payments_to_expire
-- Up to $1 open payments whose time is over and that nobody has given up, with the attempt that is open.
SELECT p.id, a.id AS attempt_id
FROM payments AS p
INNER JOIN payment_attempts AS a ON p.id = a.payment_id
WHERE
    p.expires_at <= now() AND p.wish IS NULL AND p.state IN ('created', 'pending', 'processing', 'unknown')
    AND a.state IN ('created', 'pending', 'processing', 'unknown')
ORDER BY p.expires_at
LIMIT $1;

-- name: payments_to_expire_by_age
-- As payments_to_expire; those of the surface $2 besides that have a time and are as old as $3 seconds.
SELECT p.id, a.id AS attempt_id
FROM payments AS p
INNER JOIN payment_attempts AS a ON p.id = a.payment_id
WHERE
    p.expires_at IS NOT NULL AND p.wish IS NULL AND p.state IN ('created', 'pending', 'processing', 'unknown')
    AND (
        p.expires_at <= now()
        OR (p.surface = $2 AND p.created_at <= now() - make_interval(secs => $3::double precision))
    )
    AND a.state IN ('created', 'pending', 'processing', 'unknown')
ORDER BY p.expires_at
LIMIT $1;
