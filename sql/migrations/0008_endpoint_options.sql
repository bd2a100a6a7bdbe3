-- What an endpoint may ask for, and an index that finds what has come due lately.

-- A worker looks at what came due since its last look, whoever it is for; the index by endpoint then finds each
-- one's share. Neither walks over the dead entries of what was taken before, which a foreign transaction may
-- keep from being cleaned. It is on an expression so that nothing but that look can use it: for a claim of one
-- endpoint the planner would take it, too, and read what is due to all the others.
CREATE INDEX webhook_deliveries_lately_due ON webhook_deliveries ((due_at AT TIME ZONE 'UTC'))
WHERE state = 'pending';

ALTER TABLE webhook_endpoints
ADD COLUMN signing_keys text[] NOT NULL DEFAULT '{}' CHECK (cardinality(signing_keys) <= 4);

COMMENT ON COLUMN webhook_endpoints.signing_keys IS
'Private keys of ed25519, newest first, for an endpoint that asks for v1a; they end like the secrets do.';

GRANT UPDATE (signing_keys) ON webhook_endpoints TO tallystick_serving;

-- An endpoint may be held back until its URL has echoed a challenge, and then has proven itself (verified_at).
ALTER TABLE webhook_endpoints
ADD COLUMN verify boolean NOT NULL DEFAULT FALSE,
ADD COLUMN verified_at timestamptz,
DROP CONSTRAINT webhook_endpoints_disabled_reason_check,
ADD CONSTRAINT webhook_endpoints_disabled_reason_check CHECK (
    disabled_reason IN ('by_owner', 'gone', 'failing', 'unverified')
),
ADD CONSTRAINT webhook_endpoints_proven_or_off CHECK (
    NOT verify OR verified_at IS NOT NULL OR disabled_at IS NOT NULL
);

COMMENT ON COLUMN webhook_endpoints.verify IS 'Whether the URL has to prove itself before anything is sent to it.';
COMMENT ON COLUMN webhook_endpoints.verified_at IS 'When this URL has echoed a challenge; another URL has to do so.';

GRANT UPDATE (verify, verified_at) ON webhook_endpoints TO tallystick_serving;
