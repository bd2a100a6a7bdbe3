-- name: user_endpoints
-- Up to $2 living endpoints of users with ids below $1, newest first: id, user_id, user_phone, url, active, created_at.
SELECT e.id, u.id AS user_id, u.phone AS user_phone, e.url, e.disabled_at IS NULL AS active, e.created_at
FROM webhook_endpoints AS e
INNER JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.deleted_at IS NULL AND e.id < $1
ORDER BY e.id DESC
LIMIT $2;

-- name: lock_endpoint
-- Whether the living endpoint $1 is active, and whose it is; its row is locked. No row where there is none.
SELECT e.disabled_at IS NULL AS active, u.id AS user_id
FROM webhook_endpoints AS e
LEFT JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.id = $1 AND e.deleted_at IS NULL
FOR UPDATE OF e;

-- name: switch_endpoint
-- Switch endpoint $1 on ($2), which forgets its failures, or off. No row comes back.
UPDATE webhook_endpoints
SET
    disabled_at = CASE WHEN $2::boolean THEN NULL ELSE clock_timestamp() END,
    disabled_reason = CASE WHEN $2::boolean THEN NULL ELSE 'by_admin' END,
    failing_since = CASE WHEN $2::boolean THEN NULL ELSE failing_since END,
    failed_attempts = CASE WHEN $2::boolean THEN 0 ELSE failed_attempts END,
    failed_deliveries = CASE WHEN $2::boolean THEN 0 ELSE failed_deliveries END
WHERE id = $1;

-- name: endpoint_deliveries
-- Up to $3 deliveries to endpoint $1 with ids below $2 after the first $4, newest first: id, event_type, state,
-- attempts, last_error, created_at.
SELECT d.id, o.event_type, d.state, d.attempts, d.last_error, d.created_at
FROM webhook_deliveries AS d
INNER JOIN outbox_events AS o ON d.event_id = o.id
WHERE d.endpoint_id = $1 AND d.id < $2
ORDER BY d.id DESC
LIMIT $3 OFFSET $4;
