-- The traces in which events were stored, for a service that traces: a worker goes on with the trace when it applies an
-- event or delivers it. The table is unlogged: a crash of the server empties it, which costs nothing but the link
-- between two parts of some traces, and no commit waits for it.
--
-- online: yes, its table is its own

CREATE UNLOGGED TABLE event_traces (
    event_id uuid PRIMARY KEY,
    traceparent text COLLATE "C" NOT NULL CHECK (octet_length(traceparent) = 55)
);

COMMENT ON TABLE event_traces IS 'The W3C trace contexts of events in and out, while they are young.';

GRANT SELECT, INSERT, DELETE ON event_traces TO tallystick_serving;
