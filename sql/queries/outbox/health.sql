-- name: note_endpoint_success
-- A delivery to endpoint $1 has arrived, which ends a series of failures. No row comes back.
UPDATE webhook_endpoints SET failing_since = NULL, failed_attempts = 0, failed_deliveries = 0
WHERE id = $1 AND failing_since IS NOT NULL;

-- name: count_endpoint_failure
-- Count a failed attempt, and with $2 = 1 a delivery that was given up, unless the endpoint is off already:
-- principal_id, failing_since, failed_attempts, failed_deliveries, failing_seconds. The row stays locked.
UPDATE webhook_endpoints
SET
    failing_since = coalesce(failing_since, clock_timestamp()),
    failed_attempts = failed_attempts + 1, failed_deliveries = failed_deliveries + $2
WHERE id = $1 AND deleted_at IS NULL AND disabled_at IS NULL
RETURNING
    principal_id, failing_since, failed_attempts, failed_deliveries,
    extract(EPOCH FROM clock_timestamp() - failing_since)::double precision AS failing_seconds;
