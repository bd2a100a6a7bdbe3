-- Who may call: principals, and the API keys that speak for them.

-- The owner of what a key creates, idempotency keys included: a new API key of the same principal still finds them.
CREATE TABLE principals (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE api_keys (
    key_id text PRIMARY KEY CHECK (key_id ~ '^[a-z2-7]{12}$'),
    principal_id integer NOT NULL REFERENCES principals,
    -- SHA-256 of the secret; the secret itself is shown once and kept nowhere.
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 500),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the hour: finds keys that nobody uses any more without a write a request.
    last_used_at timestamptz
);
CREATE INDEX api_keys_principal ON api_keys (principal_id);

GRANT SELECT ON principals, api_keys TO tallystick_serving;
GRANT UPDATE (last_used_at) ON api_keys TO tallystick_serving;
