-- Partitions by time, step 3 of 3: attempts by their own time, the audit by its ids, which are in the order of time.
--
-- online: yes, tables change their names and no row is moved or read
--
-- The tables of before become the first partitions under new names. No row is moved, read or copied, since
-- the checks of step 1 prove that all of them belong there and the indexes are there already: both tables are locked
-- for some milliseconds. Statements that wait meanwhile find the new tables by their names. A worker of the version
-- before may go on: for the first days all rows are in the first partition, so a row's place (ctid) names one row
-- yet.

ALTER TABLE webhook_attempts RENAME TO webhook_attempts_first;
ALTER TABLE webhook_attempts_first RENAME CONSTRAINT webhook_attempts_pkey TO webhook_attempts_first_pkey;
ALTER INDEX webhook_attempts_by_age RENAME TO webhook_attempts_first_by_age;

-- A partition's checks have the names of the whole table's.
CREATE TABLE webhook_attempts (
    delivery_id uuid NOT NULL,
    at timestamptz NOT NULL,
    status integer,
    latency_ms integer NOT NULL CONSTRAINT webhook_attempts_latency_ms_check CHECK (latency_ms >= 0),
    excerpt text NOT NULL CONSTRAINT webhook_attempts_excerpt_check CHECK (char_length(excerpt) <= 1100),
    error text CONSTRAINT webhook_attempts_error_check CHECK (char_length(error) <= 500),
    PRIMARY KEY (delivery_id, at)
) PARTITION BY RANGE (at);

COMMENT ON COLUMN webhook_attempts.excerpt IS 'The beginning of the answer, personal data masked.';

ALTER TABLE audit_events RENAME TO audit_events_first;
ALTER TABLE audit_events_first RENAME CONSTRAINT audit_events_pkey TO audit_events_first_pkey;
ALTER INDEX audit_events_type RENAME TO audit_events_first_type;
ALTER INDEX audit_events_user RENAME TO audit_events_first_user;
ALTER INDEX audit_events_object RENAME TO audit_events_first_object;
ALTER INDEX audit_events_actor RENAME TO audit_events_first_actor;

CREATE TABLE audit_events (
    id uuid PRIMARY KEY,
    type text NOT NULL CONSTRAINT audit_events_type_check CHECK (length(type) BETWEEN 1 AND 100),
    actor text NOT NULL CONSTRAINT audit_events_actor_check CHECK (length(actor) BETWEEN 1 AND 200),
    user_id uuid, -- whom it concerns
    object_id text CONSTRAINT audit_events_object_id_check CHECK (length(object_id) <= 255),
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (id);
CREATE INDEX audit_events_type ON audit_events (type, id);
CREATE INDEX audit_events_user ON audit_events (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_events_object ON audit_events (object_id, id) WHERE object_id IS NOT NULL;
CREATE INDEX audit_events_actor ON audit_events (actor, id);

COMMENT ON COLUMN audit_events.actor IS 'user:<id>, admin, internal, system:<job>.';

DO $$
DECLARE
    attempts_end timestamptz := (SELECT p.to_at FROM partitions AS p WHERE p.name = 'webhook_attempts_first');
    audit_end timestamptz := (SELECT p.to_at FROM partitions AS p WHERE p.name = 'audit_events_first');
BEGIN
    EXECUTE format(
        'ALTER TABLE webhook_attempts ATTACH PARTITION webhook_attempts_first FOR VALUES FROM (MINVALUE) TO (%L)',
        attempts_end
    );
    EXECUTE format(
        'ALTER TABLE audit_events ATTACH PARTITION audit_events_first FOR VALUES FROM (MINVALUE) TO (%L)',
        (lpad(to_hex((extract(EPOCH FROM audit_end) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
    );
END
$$;

ALTER TABLE webhook_attempts_first DROP CONSTRAINT webhook_attempts_ends;
ALTER TABLE audit_events_first DROP CONSTRAINT audit_events_ends;

-- A row that no other partition takes is never lost: it comes here, a metric tells of it, and it moves as soon as its
-- partition is made.
CREATE TABLE webhook_attempts_rest PARTITION OF webhook_attempts DEFAULT;
CREATE TABLE audit_events_rest PARTITION OF audit_events DEFAULT;

-- Rights are those of the whole; nobody but the functions of partitions touches a single one. Attempts can be added
-- and read, and no longer removed one by one.
REVOKE ALL ON webhook_attempts_first, audit_events_first FROM tallystick_serving;
GRANT SELECT, INSERT ON webhook_attempts, audit_events TO tallystick_serving;
