-- Deliveries that are done and events that were told are removed when they are old (sql/functions/outbox_prune.sql). A
-- principal's first position tells a reader whose cursor is older that it has missed something.

ALTER TABLE outbox_positions ADD COLUMN first_position bigint NOT NULL DEFAULT 1 CHECK (first_position > 0);

COMMENT ON COLUMN outbox_positions.first_position IS 'All events from before this position may be removed.';
