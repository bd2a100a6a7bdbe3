-- name: epoch
-- The epoch of this history.
SELECT epoch FROM epochs ORDER BY started_at DESC LIMIT 1;
