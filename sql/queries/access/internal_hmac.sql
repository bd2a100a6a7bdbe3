-- name: use_internal_signature
-- One row: what the signature $1 was first used for, and how often it has been used with this time; for operation $2
-- under key $3, to be forgotten at $4, if it is new.
INSERT INTO internal_signatures AS s (signature, operation, idempotency_key, expires_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (signature) DO UPDATE SET uses = s.uses + 1
RETURNING operation, idempotency_key, uses;

-- name: forget_signatures
-- Forget up to $1 signatures that are too old to be accepted again. No row comes back.
DELETE FROM internal_signatures WHERE signature IN (
    SELECT s.signature FROM internal_signatures AS s
    WHERE s.expires_at <= clock_timestamp()
    ORDER BY s.expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
);
