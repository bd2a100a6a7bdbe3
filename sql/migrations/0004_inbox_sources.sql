-- Senders that are registered at run time, each with an address of its own under /webhooks/in.

CREATE TABLE inbox_sources (
    id uuid PRIMARY KEY,
    principal_id integer NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 500),
    kind text NOT NULL CHECK (kind IN ('standard', 'standard_ed25519', 'hmac')),
    options jsonb NOT NULL CHECK (octet_length(options::text) <= 8192),
    secret text NOT NULL CHECK (octet_length(secret) BETWEEN 1 AND 1024),
    previous_secret text CHECK (octet_length(previous_secret) BETWEEN 1 AND 1024),
    previous_until timestamptz,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    -- A name is never given away again: the events of its first owner are stored under it.
    CONSTRAINT inbox_sources_name UNIQUE (name),
    CONSTRAINT inbox_sources_overlap_whole CHECK (
        (previous_secret IS NULL) = (previous_until IS NULL)
    )
);

COMMENT ON COLUMN inbox_sources.options IS
'The signature''s form, and where in a request the id, the type and the object of an event stand.';
COMMENT ON COLUMN inbox_sources.secret IS
'The key itself, since signatures are computed with it; for standard_ed25519 the sender''s public key.';

CREATE INDEX inbox_sources_of_principal ON inbox_sources (principal_id, id) WHERE deleted_at IS NULL;

GRANT SELECT, INSERT ON inbox_sources TO tallystick_serving;
GRANT UPDATE (
    description, options, secret, previous_secret, previous_until, disabled_at, deleted_at
) ON inbox_sources TO tallystick_serving;

-- PayPal signs the transmission's id and a CRC-32 of the body. A body with the same CRC-32 is made in no time,
-- so a recorded signature would be good for any event: one transmission may therefore tell of one event only.
CREATE UNIQUE INDEX inbox_events_transmission
ON inbox_events ((headers ->> 'paypal-transmission-id'))
WHERE provider = 'paypal';
