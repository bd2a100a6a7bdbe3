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

-- Order, for endpoints that ask for it: of the deliveries of one object to one endpoint one at a time is in turn
-- (due, under way, or to be tried again), and the others wait for it in the order of their events. Rows become
-- `waiting` by anybody and leave it by one statement alone, release_deliveries_in_turn, under the lock of the
-- endpoint's row.
ALTER TABLE webhook_endpoints ADD COLUMN ordered boolean NOT NULL DEFAULT FALSE;

COMMENT ON COLUMN webhook_endpoints.ordered IS 'Whether the events of an object go to it one after the other.';

ALTER TABLE webhook_deliveries
ADD COLUMN ordered_object text CHECK (octet_length(ordered_object) BETWEEN 1 AND 255),
DROP CONSTRAINT webhook_deliveries_state_check,
ADD CONSTRAINT webhook_deliveries_state_check CHECK (
    state IN ('pending', 'leased', 'delivered', 'failed', 'waiting')
);

COMMENT ON COLUMN webhook_deliveries.ordered_object IS 'The object in whose order it goes; null: in none.';

CREATE UNIQUE INDEX webhook_deliveries_in_turn ON webhook_deliveries (endpoint_id, ordered_object)
WHERE ordered_object IS NOT NULL AND state IN ('pending', 'leased');
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, ordered_object, event_id)
WHERE state = 'waiting' AND ordered_object IS NOT NULL;

GRANT UPDATE (ordered) ON webhook_endpoints TO tallystick_serving;

-- Batches, for endpoints that ask for them: deliveries that a worker has claimed together become one message. One
-- of them carries it (batch_id is its own id) and is sent, tried again and given up like any other; the rest wait
-- and share its fate. Who is in a batch never changes, so that its bytes do not either.
ALTER TABLE webhook_endpoints
ADD COLUMN batch_size integer NOT NULL DEFAULT 1 CHECK (batch_size BETWEEN 1 AND 100),
ADD CONSTRAINT webhook_endpoints_ordered_or_batched CHECK (NOT ordered OR batch_size = 1);

COMMENT ON COLUMN webhook_endpoints.batch_size IS 'Events of one message at most; 1: each on its own.';

ALTER TABLE webhook_deliveries
ADD COLUMN batch_id uuid,
ADD CONSTRAINT webhook_deliveries_waiting_for_something CHECK (
    state <> 'waiting' OR ordered_object IS NOT NULL OR (batch_id IS NOT NULL AND batch_id <> id)
),
ADD CONSTRAINT webhook_deliveries_ordered_or_batched CHECK (ordered_object IS NULL OR batch_id IS NULL);

COMMENT ON COLUMN webhook_deliveries.batch_id IS 'The delivery that carries it in a batch; null: it goes alone.';

CREATE INDEX webhook_deliveries_of_batch ON webhook_deliveries (batch_id) WHERE batch_id IS NOT NULL;

GRANT UPDATE (batch_size) ON webhook_endpoints TO tallystick_serving;
GRANT UPDATE (batch_id) ON webhook_deliveries TO tallystick_serving;
