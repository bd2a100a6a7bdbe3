-- name: use_internal_signature
-- One row: the first use of the signature $1, and the number of its uses, this one included. A new one is stored for
-- operation $2 under key $3, to be forgotten at $4.
INSERT INTO internal_signatures AS s (signature, operation, idempotency_key, expires_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (signature) DO UPDATE SET uses = s.uses + 1
RETURNING operation, idempotency_key, uses;

-- name: forget_signatures
-- Forget up to $1 signatures that are too old to be accepted again. No row comes back.
DELETE FROM internal_signatures WHERE signature IN (
    SELECT s.signature FROM internal_signatures AS s
    WHERE s.expires_at <= now()
    ORDER BY s.expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
);
