-- name: refund_by_key
-- The refund of the payment $1 under the request id $2.
SELECT id, payment_id, attempt_id, request_id, amount, state, provider_id, word, error, looks, created_at
FROM payment_refunds
WHERE payment_id = $1 AND request_id = $2;

-- name: latest_trial
-- The latest refund of the payment $1 under the request id $2, or under that with a colon and more.
SELECT id, payment_id, attempt_id, request_id, amount, state, provider_id, word, error, looks, created_at
FROM payment_refunds
WHERE payment_id = $1 AND (request_id = $2 OR starts_with(request_id, $2 || ':'))
ORDER BY id DESC
LIMIT 1;

-- name: store_refund
-- Store a refund, and return it: id, payment, attempt, request id, amount, and the seconds until others may ask.
INSERT INTO payment_refunds (id, payment_id, attempt_id, request_id, amount, next_look_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6::double precision))
RETURNING id, payment_id, attempt_id, request_id, amount, state, provider_id, word, error, looks, created_at;

-- name: refunds_under_way
-- The sum of the refunds of the attempt $1 that may still be done.
SELECT coalesce(sum(r.amount), 0)::bigint AS amount FROM payment_refunds AS r
INNER JOIN payment_attempts AS a ON r.attempt_id = a.id AND r.payment_id = a.payment_id
WHERE a.id = $1 AND r.state IN ('created', 'pending', 'unknown');

-- name: refunds_of_attempt
-- The refunds of the attempt $1: the sum of those that were done, that of those that may still be done, and for the
-- oldest of the latter the sum of refunds made at the provider itself when it was asked for (null: not known).
SELECT
    coalesce(sum(r.amount) FILTER (WHERE r.state = 'done'), 0)::bigint AS done,
    coalesce(sum(r.amount) FILTER (WHERE r.state IN ('created', 'pending', 'unknown')), 0)::bigint AS waiting,
    (
        array_agg((t.data ->> 'elsewhere')::bigint ORDER BY t.no)
        FILTER (WHERE r.state IN ('created', 'pending', 'unknown'))
    )[1] AS elsewhere
FROM payment_refunds AS r
INNER JOIN payment_attempts AS a ON r.attempt_id = a.id AND r.payment_id = a.payment_id
LEFT JOIN payment_timeline AS t
    ON r.payment_id = t.payment_id AND t.kind = 'refund_asked' AND r.request_id = t.data ->> 'request_id'
WHERE a.id = $1;

-- name: refunds_done
-- The sum of the refunds of the attempt $1 that were done.
SELECT coalesce(sum(r.amount), 0)::bigint AS amount FROM payment_refunds AS r
INNER JOIN payment_attempts AS a ON r.attempt_id = a.id AND r.payment_id = a.payment_id
WHERE a.id = $1 AND r.state = 'done';

-- name: change_refund
-- Write the refund $1 as it is now, ask about it again in $6 seconds (null: never), and return it.
UPDATE payment_refunds SET
    state = $2, provider_id = coalesce($3, provider_id), word = $4, error = $5, looks = looks + 1,
    next_look_at = clock_timestamp() + make_interval(secs => $6::double precision), updated_at = clock_timestamp()
WHERE id = $1
RETURNING id, payment_id, attempt_id, request_id, amount, state, provider_id, word, error, looks, created_at;

-- name: claim_refunds
-- Take up to $1 refunds that are due for $2 seconds. One whose first call may not have been made counts as looked at
-- and is repeated only where that is safe.
WITH due AS (
    SELECT id FROM payment_refunds
    WHERE next_look_at <= now()
    ORDER BY next_look_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)

UPDATE payment_refunds AS r SET
    looks = r.looks + 1, next_look_at = clock_timestamp() + make_interval(secs => $2::double precision)
FROM due WHERE r.id = due.id
RETURNING
    r.id, r.payment_id, r.attempt_id, r.request_id, r.amount, r.state, r.provider_id, r.word, r.error, r.looks,
    r.created_at;
