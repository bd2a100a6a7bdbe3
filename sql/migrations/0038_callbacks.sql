-- Callbacks over the outbox: one POST of given bytes about one object, to an address that belongs to the object and not
-- to a subscription. A callback is an event that is not fanned out, with a delivery to an endpoint which no principal
-- owns, so that claims, leases, attempts, retries and retention are those of all deliveries.

ALTER TABLE webhook_endpoints
ADD COLUMN surface text CHECK (surface ~ '^[a-z_]{1,32}$'),
ADD COLUMN owner text COLLATE "C" CHECK (octet_length(owner) BETWEEN 1 AND 512),
ADD CONSTRAINT webhook_endpoints_of_surface_whole CHECK ((surface IS NULL) = (owner IS NULL));

COMMENT ON COLUMN webhook_endpoints.surface IS
'The surface whose callbacks go there, to the servers of `owner` at `url`; null: an endpoint of its principal.';

CREATE UNIQUE INDEX webhook_endpoints_of_surface ON webhook_endpoints (surface, owner, url)
WHERE surface IS NOT NULL;

ALTER TABLE outbox_events ADD COLUMN request jsonb;

COMMENT ON COLUMN outbox_events.request IS 'The address and the further headers of a callback, never a secret.';

-- The callbacks of an object, so that it can be told how they stand. The last columns are written when the delivery is
-- removed because it is old.
CREATE TABLE callbacks (
    delivery_id uuid PRIMARY KEY,
    surface text NOT NULL CHECK (surface ~ '^[a-z_]{1,32}$'),
    object_id text COLLATE "C" NOT NULL CHECK (octet_length(object_id) BETWEEN 1 AND 255),
    superseded boolean NOT NULL DEFAULT FALSE,
    state text CHECK (state IN ('delivered', 'failed')),
    attempts integer,
    last_status integer,
    last_error text CHECK (char_length(last_error) <= 500),
    finished_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON COLUMN callbacks.superseded IS
'A later callback of the object has been written: this one is not tried again.';

CREATE INDEX callbacks_of_object ON callbacks (surface, object_id, delivery_id);

GRANT SELECT, INSERT ON callbacks TO tallystick_serving;
GRANT UPDATE (superseded) ON callbacks TO tallystick_serving;
