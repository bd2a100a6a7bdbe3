-- A refresh whose answer was lost may be sent again for some seconds, and gets the same successor.

ALTER TABLE sessions
ADD COLUMN used_hash bytea CHECK (length(used_hash) = 32),
ADD COLUMN rotated_at timestamptz;

COMMENT ON COLUMN sessions.used_hash IS 'SHA-256 of the secret of the refresh token before the newest.';
COMMENT ON COLUMN sessions.rotated_at IS 'The time at which that one was used.';

GRANT UPDATE (used_hash, rotated_at) ON sessions TO tallystick_serving;
