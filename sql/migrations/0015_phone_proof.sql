-- Who registers with a password takes the phone on trust; the first sign-in by code proves whose it is.

ALTER TABLE users ADD COLUMN phone_proven_at timestamptz;
-- Nobody who is here already loses a password by this.
UPDATE users SET phone_proven_at = created_at;

COMMENT ON COLUMN users.phone_proven_at IS 'The first sign-in by code; null: nobody has shown whose the phone is.';

GRANT UPDATE (phone_proven_at) ON users TO tallystick_serving;
GRANT DELETE ON passkeys TO tallystick_serving;
