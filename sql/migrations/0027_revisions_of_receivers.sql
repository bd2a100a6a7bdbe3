-- The revisions of endpoints and sources, which `If-Match` names. Each change raises its row's by one.

ALTER TABLE webhook_endpoints ADD COLUMN revision bigint NOT NULL DEFAULT 1 CHECK (revision > 0);
ALTER TABLE inbox_sources ADD COLUMN revision bigint NOT NULL DEFAULT 1 CHECK (revision > 0);

COMMENT ON COLUMN webhook_endpoints.revision IS 'Raised by each change, also by a switch; not by counts of failures.';
COMMENT ON COLUMN inbox_sources.revision IS 'Raised by each change.';

GRANT UPDATE (revision) ON webhook_endpoints TO tallystick_serving;
GRANT UPDATE (revision) ON inbox_sources TO tallystick_serving;
