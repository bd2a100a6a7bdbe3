-- Signing in: refresh tokens that know their family, and passkeys.

-- A refresh token names its sign-in, and holds a secret of the sign-in (the family) and one of its own. So one that was
-- used before is known for what it is, however long ago that was, and rows are looked for by id alone.
DROP INDEX sessions_refresh;
DROP INDEX sessions_previous;
ALTER TABLE sessions RENAME COLUMN previous_hash TO family_hash;
ALTER TABLE sessions
ADD CONSTRAINT sessions_refresh_has_family CHECK ((refresh_hash IS NULL) = (family_hash IS NULL));

COMMENT ON COLUMN sessions.refresh_hash IS 'SHA-256 of the secret of the newest refresh token; null: no such token.';
COMMENT ON COLUMN sessions.family_hash IS 'SHA-256 of the secret that all refresh tokens of this sign-in share.';

CREATE TABLE passkeys (
    credential_id bytea PRIMARY KEY CHECK (length(credential_id) BETWEEN 1 AND 1023), -- WebAuthn, section 5.8.3
    user_id uuid NOT NULL REFERENCES users,
    public_key bytea NOT NULL CHECK (length(public_key) BETWEEN 1 AND 4096), -- a COSE key
    sign_count bigint NOT NULL CHECK (sign_count >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz
);
CREATE INDEX passkeys_of_user ON passkeys (user_id);

GRANT SELECT, INSERT ON passkeys TO tallystick_serving;
GRANT UPDATE (sign_count, used_at) ON passkeys TO tallystick_serving;
