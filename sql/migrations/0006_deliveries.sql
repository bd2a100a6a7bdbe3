-- Deliveries that explain themselves: every attempt is kept for a while, an endpoint knows how it fares, and
-- events have a position by which those who cannot receive can read them.

ALTER TABLE webhook_endpoints
ADD COLUMN description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 500),
ADD COLUMN headers jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(headers::text) <= 16384),
ADD COLUMN old_secrets_until timestamptz,
ADD COLUMN disabled_at timestamptz,
ADD COLUMN disabled_reason text CHECK (disabled_reason IN ('by_owner', 'gone', 'failing')),
ADD COLUMN failing_since timestamptz,
ADD COLUMN failed_attempts integer NOT NULL DEFAULT 0 CHECK (failed_attempts >= 0),
ADD COLUMN failed_deliveries integer NOT NULL DEFAULT 0 CHECK (failed_deliveries >= 0),
ADD CONSTRAINT webhook_endpoints_disabled_or_not CHECK (
    (disabled_at IS NULL) = (disabled_reason IS NULL)
);

COMMENT ON COLUMN webhook_endpoints.event_types IS 'Types and patterns such as transfer.*; empty means all.';
COMMENT ON COLUMN webhook_endpoints.old_secrets_until IS 'Only the newest secret counts after this time.';
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'The first failure since the last success, then null.';
COMMENT ON COLUMN webhook_endpoints.failed_attempts IS 'Since the last success; failed_deliveries: given up.';

-- One row for each try: what the receiver said, how long it took. Pruned by age.
CREATE TABLE webhook_attempts (
    delivery_id uuid NOT NULL,
    at timestamptz NOT NULL,
    status integer,
    latency_ms integer NOT NULL CHECK (latency_ms >= 0),
    excerpt text NOT NULL CHECK (char_length(excerpt) <= 1100),
    error text CHECK (char_length(error) <= 500),
    PRIMARY KEY (delivery_id, at)
);

COMMENT ON COLUMN webhook_attempts.excerpt IS 'The beginning of the answer, personal data masked.';

CREATE INDEX webhook_attempts_by_age ON webhook_attempts (at);

-- What is replayed is found here, in the order of its events.
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (endpoint_id, id) WHERE state = 'failed';

-- A position is drawn at the end of the fan-out, under the lock of its principal's row: so it becomes visible
-- in the order of the numbers, and a reader that keeps the last one it saw misses nothing.
ALTER TABLE outbox_events ADD COLUMN position bigint CHECK (position > 0);

CREATE UNIQUE INDEX outbox_events_position ON outbox_events (principal_id, position)
WHERE position IS NOT NULL;

CREATE TABLE outbox_positions (
    principal_id integer PRIMARY KEY,
    last_position bigint NOT NULL CHECK (last_position > 0)
) WITH (fillfactor = 50);

COMMENT ON TABLE outbox_positions IS 'The position of each principal''s last event.';

GRANT SELECT, INSERT, DELETE ON webhook_attempts TO tallystick_serving;
GRANT SELECT, INSERT ON outbox_positions TO tallystick_serving;
GRANT UPDATE (last_position) ON outbox_positions TO tallystick_serving;
GRANT UPDATE (position) ON outbox_events TO tallystick_serving;
GRANT UPDATE (
    url,
    description,
    headers,
    old_secrets_until,
    disabled_at,
    disabled_reason,
    failing_since,
    failed_attempts,
    failed_deliveries
) ON webhook_endpoints TO tallystick_serving;
