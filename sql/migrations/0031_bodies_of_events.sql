-- An event's row changes when it is finished, and PostgreSQL then writes the whole of it again. Its body never changes,
-- so it stands in a table of its own and is written once. Bodies of before stay where they are.

CREATE TABLE inbox_bodies (
    id uuid PRIMARY KEY,
    body bytea NOT NULL
);

COMMENT ON TABLE inbox_bodies IS 'The bodies of events, as they were signed.';

ALTER TABLE inbox_events ALTER COLUMN body DROP NOT NULL;
COMMENT ON COLUMN inbox_events.body IS 'The body of an event from before inbox_bodies; null for all others.';

-- No change of an event leaves its indexes alone, so room for it on the same page would serve nothing.
ALTER TABLE inbox_events SET (fillfactor = 100);

GRANT SELECT, INSERT ON inbox_bodies TO tallystick_serving;
