-- Merchants: their API keys, and what was signed with them.

CREATE TABLE merchant_api_keys (
    key_id text COLLATE "C" PRIMARY KEY CHECK (length(key_id) BETWEEN 1 AND 64),
    user_id uuid NOT NULL REFERENCES users,
    sealed_secret bytea NOT NULL CHECK (octet_length(sealed_secret) BETWEEN 29 AND 512),
    scope text NOT NULL DEFAULT 'transactions:read' CHECK (length(scope) <= 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz
);
CREATE INDEX merchant_api_keys_of_user ON merchant_api_keys (user_id, created_at, key_id) WHERE deleted_at IS NULL;

COMMENT ON COLUMN merchant_api_keys.sealed_secret IS 'Encrypted: whoever checks an HMAC needs the secret itself.';

-- One row a signature that was used, for as long as its time would let it pass again.
CREATE TABLE merchant_api_signatures (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32), -- SHA-256 of the key's id and the signature
    expires_at timestamptz NOT NULL
);
CREATE INDEX merchant_api_signatures_expired ON merchant_api_signatures (expires_at);

GRANT SELECT, INSERT ON merchant_api_keys TO tallystick_serving;
GRANT UPDATE (deleted_at) ON merchant_api_keys TO tallystick_serving;
GRANT SELECT, INSERT, UPDATE, DELETE ON merchant_api_signatures TO tallystick_serving;
