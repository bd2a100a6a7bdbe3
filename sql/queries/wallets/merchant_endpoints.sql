-- name: user_endpoints
-- Up to $2 endpoints of users with ids below $1 that are not deleted, newest first.
SELECT e.id, u.id AS user_id, u.phone AS user_phone, e.url, e.disabled_at IS NULL AS active, e.created_at
FROM webhook_endpoints AS e
INNER JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.deleted_at IS NULL AND e.id < $1
ORDER BY e.id DESC
LIMIT $2;

-- name: lock_endpoint
-- The endpoint $1, whose row is locked: active, and the user_id of its owner; no row for an unknown or deleted one.
SELECT e.disabled_at IS NULL AS active, u.id AS user_id
FROM webhook_endpoints AS e
LEFT JOIN users AS u ON e.principal_id = u.principal_id
WHERE e.id = $1 AND e.deleted_at IS NULL
FOR UPDATE OF e;
