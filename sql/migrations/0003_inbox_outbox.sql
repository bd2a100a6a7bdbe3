-- The webhook inbox (what providers told us), the outbox (what we tell others) and the workers that drain
-- them.
--
-- Work is leased, never locked across a network call. A lease belongs to a worker, which proves that it lives
-- by its row in `workers`, and to a token that is new with every claim: whoever finishes a row must present
-- the token.

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

COMMENT ON TABLE workers IS 'One row per living worker process; seen_at is its heartbeat.';

CREATE TABLE inbox_events (
    id uuid PRIMARY KEY,
    provider text NOT NULL CHECK (octet_length(provider) BETWEEN 1 AND 50),
    event_id text NOT NULL CHECK (octet_length(event_id) BETWEEN 1 AND 255),
    event_type text NOT NULL CHECK (octet_length(event_type) BETWEEN 1 AND 255),
    object_id text CHECK (octet_length(object_id) BETWEEN 1 AND 255),
    occurred_at timestamptz,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'done', 'dead')),
    outcome text CHECK (octet_length(outcome) BETWEEN 1 AND 100),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text CHECK (char_length(last_error) <= 500),
    lease_worker uuid,
    lease_token uuid,
    lease_until timestamptz,
    finished_at timestamptz,
    CONSTRAINT inbox_events_once UNIQUE (provider, event_id),
    CONSTRAINT inbox_events_lease_whole CHECK (
        (state = 'leased') = (lease_worker IS NOT NULL)
        AND (state = 'leased') = (lease_token IS NOT NULL)
        AND (state = 'leased') = (lease_until IS NOT NULL)
    ),
    CONSTRAINT inbox_events_finished_or_not CHECK (
        (state IN ('done', 'dead')) = (finished_at IS NOT NULL)
        AND (state IN ('done', 'dead')) = (outcome IS NOT NULL)
    )
) WITH (fillfactor = 80);

COMMENT ON COLUMN inbox_events.body IS 'The bytes as they were signed; headers let them be verified again.';
COMMENT ON COLUMN inbox_events.occurred_at IS 'The clock of the provider; received_at is ours.';
COMMENT ON COLUMN inbox_events.outcome IS 'applied, already_applied, ignored; when dead, a code of the reason.';

CREATE INDEX inbox_events_due ON inbox_events (due_at) WHERE state = 'pending';
CREATE INDEX inbox_events_leased ON inbox_events (lease_worker) WHERE state = 'leased';
CREATE INDEX inbox_events_dead ON inbox_events (finished_at) WHERE state = 'dead';
CREATE INDEX inbox_events_object ON inbox_events (object_id, received_at) WHERE object_id IS NOT NULL;

CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    principal_id integer NOT NULL,
    url text NOT NULL CHECK (octet_length(url) BETWEEN 1 AND 2048),
    event_types text[] NOT NULL CHECK (cardinality(event_types) <= 100),
    secrets text[] NOT NULL CHECK (cardinality(secrets) BETWEEN 1 AND 4),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz
);

COMMENT ON COLUMN webhook_endpoints.event_types IS 'The types it wants; empty means all.';
COMMENT ON COLUMN webhook_endpoints.secrets IS 'Newest first; several while a rotation overlaps.';

CREATE INDEX webhook_endpoints_of_principal ON webhook_endpoints (principal_id, id) WHERE deleted_at IS NULL;

CREATE TABLE outbox_events (
    id uuid PRIMARY KEY,
    principal_id integer NOT NULL,
    event_type text NOT NULL CHECK (octet_length(event_type) BETWEEN 1 AND 100),
    object_id text CHECK (octet_length(object_id) BETWEEN 1 AND 255),
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fanned_out_at timestamptz
) WITH (fillfactor = 80);

COMMENT ON TABLE outbox_events IS 'Written by the transaction whose effect it tells of.';
COMMENT ON COLUMN outbox_events.body IS 'Exactly the bytes that are sent, the same at every try.';

CREATE INDEX outbox_events_to_fan_out ON outbox_events (id) WHERE fanned_out_at IS NULL;
CREATE INDEX outbox_events_object ON outbox_events (object_id, created_at) WHERE object_id IS NOT NULL;

CREATE TABLE webhook_deliveries (
    id uuid PRIMARY KEY,
    event_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'delivered', 'failed')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_status integer,
    last_error text CHECK (char_length(last_error) <= 500),
    lease_worker uuid,
    lease_token uuid,
    lease_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT webhook_deliveries_once UNIQUE (event_id, endpoint_id),
    CONSTRAINT webhook_deliveries_lease_whole CHECK (
        (state = 'leased') = (lease_worker IS NOT NULL)
        AND (state = 'leased') = (lease_token IS NOT NULL)
        AND (state = 'leased') = (lease_until IS NOT NULL)
    ),
    CONSTRAINT webhook_deliveries_finished_or_not CHECK (
        (state IN ('delivered', 'failed')) = (finished_at IS NOT NULL)
    )
) WITH (fillfactor = 80);

-- By endpoint first: a claim visits the endpoints in turn and takes a few of each, so that the backlog of one
-- receiver is never read on the way to another's.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_leased ON webhook_deliveries (lease_worker) WHERE state = 'leased';
CREATE INDEX webhook_deliveries_of_endpoint ON webhook_deliveries (endpoint_id, id);

-- What was received and what was said is not the serving role's to change: only the fields that track the
-- work.
GRANT SELECT, INSERT, UPDATE, DELETE ON workers TO tallystick_serving;
GRANT SELECT,
INSERT ON inbox_events,
webhook_endpoints,
outbox_events,
webhook_deliveries TO tallystick_serving;
GRANT UPDATE (
    state, outcome, attempts, due_at, last_error, lease_worker, lease_token, lease_until, finished_at
) ON inbox_events TO tallystick_serving;
GRANT UPDATE (event_types, secrets, deleted_at) ON webhook_endpoints TO tallystick_serving;
GRANT UPDATE (fanned_out_at) ON outbox_events TO tallystick_serving;
GRANT UPDATE (
    state, attempts, due_at, last_status, last_error, lease_worker, lease_token, lease_until, finished_at
) ON webhook_deliveries TO tallystick_serving;
