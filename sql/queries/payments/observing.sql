-- name: payments_waiting
-- One row: the number of attempts whose end nobody knows, up to 10,000, and the age in seconds of the oldest, 0 without
-- any; and for how long the look that has been due longest has waited, 0 where none is due. A provider that is not set
-- up counts, because nobody looks there.
WITH RECURSIVE named AS (
    -- One step over the index for each provider that has an open attempt.
    (
        SELECT a.provider FROM payment_attempts AS a
        WHERE a.next_look_at IS NOT NULL
        ORDER BY a.provider
        LIMIT 1
    )
    UNION ALL
    SELECT following.provider FROM named
    CROSS JOIN LATERAL (
        SELECT a.provider FROM payment_attempts AS a
        WHERE a.provider > named.provider AND a.next_look_at IS NOT NULL
        ORDER BY a.provider
        LIMIT 1
    ) AS following
)

SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM payment_attempts
            WHERE state = 'unknown'
            ORDER BY created_at
            LIMIT 10000
        ) AS found
    ) AS unknown,
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(a.created_at)), 0)::float8
        FROM payment_attempts AS a
        WHERE a.state = 'unknown'
    ) AS unknown_seconds,
    (
        SELECT coalesce(greatest(extract(EPOCH FROM clock_timestamp() - min(due.next_look_at)), 0), 0)::float8
        FROM named
        CROSS JOIN LATERAL (
            SELECT a.next_look_at FROM payment_attempts AS a
            WHERE a.provider = named.provider AND a.next_look_at IS NOT NULL
            ORDER BY a.next_look_at
            LIMIT 1
        ) AS due
    ) AS late_seconds;

-- name: refunds_waiting
-- One row: the number of refunds whose end nobody knows, up to 10,000, and the age in seconds of the oldest, 0 without
-- any; and for how long the refund that has been due longest has waited, 0 where none is due.
SELECT
    count(*) AS unknown,
    coalesce(extract(EPOCH FROM clock_timestamp() - min(found.created_at)), 0)::float8 AS unknown_seconds,
    (
        SELECT coalesce(greatest(extract(EPOCH FROM clock_timestamp() - min(r.next_look_at)), 0), 0)::float8
        FROM payment_refunds AS r
        WHERE r.next_look_at IS NOT NULL
    ) AS late_seconds
FROM (
    SELECT u.created_at FROM payment_refunds AS u
    WHERE u.state = 'unknown'
    ORDER BY u.id
    LIMIT 10000
) AS found;
