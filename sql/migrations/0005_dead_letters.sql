-- Dead letters: events that were given up. They stay where they are, in `inbox_events`, state `dead`; here is
-- what failed on the way, what people did about it, and the replays of many at once.

ALTER TABLE inbox_events ADD COLUMN replays integer NOT NULL DEFAULT 0 CHECK (replays >= 0);

COMMENT ON COLUMN inbox_events.replays IS 'How often a person had it tried again after it was dead.';
COMMENT ON COLUMN inbox_events.outcome IS
'applied, already_applied, ignored, discarded; when dead, a code of the reason.';

-- Ids are made in the order of receipt, so that the newest events are the end of an index.
DROP INDEX inbox_events_dead;
CREATE INDEX inbox_events_dead ON inbox_events (id) WHERE state = 'dead';
CREATE INDEX inbox_events_of_provider ON inbox_events (provider, id);

CREATE TABLE inbox_failures (
    inbox_id uuid NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt integer NOT NULL CHECK (attempt >= 1),
    code text NOT NULL CHECK (octet_length(code) BETWEEN 1 AND 100),
    error text NOT NULL CHECK (char_length(error) <= 500),
    worker uuid,
    PRIMARY KEY (inbox_id, failed_at)
);

COMMENT ON TABLE inbox_failures IS 'One row per attempt that failed; what went well leaves only its outcome.';

CREATE TABLE inbox_actions (
    inbox_id uuid NOT NULL,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL CHECK (action IN ('replayed', 'discarded')),
    actor text NOT NULL CHECK (octet_length(actor) BETWEEN 1 AND 200),
    reason text CHECK (char_length(reason) BETWEEN 1 AND 500),
    replay_id uuid,
    PRIMARY KEY (inbox_id, done_at)
);

COMMENT ON TABLE inbox_actions IS 'What people did with dead letters, and why.';

CREATE TABLE replays (
    id uuid PRIMARY KEY,
    provider text,
    event_type text,
    reason text,
    received_from timestamptz,
    received_before timestamptz,
    actor text NOT NULL CHECK (octet_length(actor) BETWEEN 1 AND 200),
    per_second integer NOT NULL CHECK (per_second BETWEEN 1 AND 1000),
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'stopped')),
    matched bigint NOT NULL CHECK (matched >= 0),
    replayed bigint NOT NULL DEFAULT 0 CHECK (replayed >= 0),
    last_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT replays_finished_or_not CHECK ((state = 'running') = (finished_at IS NULL))
) WITH (fillfactor = 80);

COMMENT ON TABLE replays IS
'Dead letters put back at a bounded rate: a cursor over those that were dead at created_at.';
COMMENT ON COLUMN replays.last_id IS 'The last letter looked at; whoever goes on begins after it.';

CREATE INDEX replays_due ON replays (due_at) WHERE state = 'running';

CREATE TABLE reconciliation_log (
    id uuid PRIMARY KEY,
    provider text,
    event_id text,
    status text NOT NULL CHECK (status IN ('completed', 'failed')),
    details jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE reconciliation_log IS 'Summaries that somebody asked to keep.';

GRANT UPDATE (replays) ON inbox_events TO tallystick_serving;
GRANT SELECT, INSERT ON inbox_failures, inbox_actions, replays, reconciliation_log TO tallystick_serving;
GRANT UPDATE (state, replayed, last_id, due_at, finished_at) ON replays TO tallystick_serving;
