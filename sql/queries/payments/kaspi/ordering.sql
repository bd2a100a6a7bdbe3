-- name: latest_twin
-- The newest payment of the caller $1 with the fingerprint $2 that was asked for without a key: its request id, its
-- state, its age in seconds.
SELECT
    p.request_id, p.state, extract(EPOCH FROM clock_timestamp() - p.created_at)::double precision AS age
FROM payments AS p
WHERE p.surface = 'kaspi' AND p.caller = $1 AND p.fingerprint = $2 AND p.request_id LIKE 'same:%'
ORDER BY p.created_at DESC
LIMIT 1;
