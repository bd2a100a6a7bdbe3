-- What a sibling service's signature was used for. A signature says neither for which operation nor under which key it
-- was made, so the first use settles that, and whoever caught it cannot use it for anything else.
CREATE TABLE internal_signatures (
    signature bytea PRIMARY KEY CHECK (length(signature) = 32),
    operation text NOT NULL CHECK (length(operation) BETWEEN 1 AND 100),
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 64),
    uses integer NOT NULL DEFAULT 1,
    -- Null: never, because nothing in the signed text says how old it is.
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX internal_signatures_expired ON internal_signatures (expires_at) WHERE expires_at IS NOT NULL;

COMMENT ON TABLE internal_signatures IS 'Guards /internal against replay; see core.access.internal_hmac.';

GRANT SELECT, INSERT, DELETE ON internal_signatures TO tallystick_serving;
GRANT UPDATE (uses) ON internal_signatures TO tallystick_serving;
