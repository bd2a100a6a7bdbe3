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
