-- name: record_deliveries
-- Write down the results of deliveries: state `delivered`, `failed`, or `pending` again in retry_seconds; and the
-- attempt, if there was one (sent_at). The query answers the ids whose lease still held; the others were taken over
-- and are sent again with the same id.
WITH result AS (
    SELECT * FROM
        unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::double precision[], $6::timestamptz[], $7::integer[],
            $8::integer[], $9::text[], $10::text[]
        ) AS given (id, token, state, last_error, retry_seconds, sent_at, latency_ms, status, excerpt, error)
),

kept AS (
    INSERT INTO webhook_attempts (delivery_id, at, status, latency_ms, excerpt, error)
    SELECT result.id, result.sent_at, result.status, result.latency_ms, result.excerpt, result.error
    FROM result
    WHERE result.sent_at IS NOT NULL
    ON CONFLICT (delivery_id, at) DO NOTHING
)

UPDATE webhook_deliveries AS delivery
SET
    state = result.state,
    attempts = delivery.attempts - CASE WHEN result.sent_at IS NULL THEN 1 ELSE 0 END,
    due_at = CASE
        WHEN result.state = 'pending' THEN clock_timestamp() + make_interval(secs => result.retry_seconds)
        ELSE delivery.due_at
    END,
    finished_at = CASE WHEN result.state <> 'pending' THEN clock_timestamp() END,
    last_status = result.status, last_error = result.last_error,
    lease_worker = NULL, lease_token = NULL, lease_until = NULL
FROM result
WHERE delivery.id = any($1::uuid[]) AND delivery.id = result.id AND delivery.lease_token = result.token
RETURNING delivery.id;
