-- Partitions by time, step 1 of 3: the book of partitions, and a bound on what the tables of today will hold.
--
-- online: yes, the checks are not valid yet, so no row is read
--
-- A table of today becomes the first partition of its successor, with all its rows and indexes where they are
-- (step 3). A partition needs an end, so each table gets one that lies ahead, as a check that no row of before is
-- asked for here (NOT VALID). Step 2 asks them without holding anybody up. Rows of after that end would be refused
-- while step 3 is outstanding, so the steps belong together; the end is eight days away, and a month for the audit.

CREATE TABLE partitions (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    parent text COLLATE "C" NOT NULL,
    from_at timestamptz,
    to_at timestamptz,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detached_at timestamptz,
    archived_at timestamptz,
    row_count bigint CHECK (row_count >= 0),
    sha256 text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    location text CHECK (octet_length(location) BETWEEN 1 AND 2048),
    dropped_at timestamptz,
    restored_at timestamptz,
    CONSTRAINT partitions_archived_whole CHECK (
        (archived_at IS NULL) = (row_count IS NULL) AND (archived_at IS NULL) = (sha256 IS NULL)
        AND (archived_at IS NULL) = (location IS NULL)
    ),
    CONSTRAINT partitions_dropped_when_detached CHECK (dropped_at IS NULL OR detached_at IS NOT NULL)
);

COMMENT ON TABLE partitions IS 'One row per partition that there is or was; only its functions write it.';
COMMENT ON COLUMN partitions.from_at IS 'The first moment of its rows; null: the beginning of time.';
COMMENT ON COLUMN partitions.to_at IS 'The moment after its rows; null: it takes what no other partition does.';
COMMENT ON COLUMN partitions.location IS 'The place of its rows in the archive.';
COMMENT ON COLUMN partitions.restored_at IS 'When a person has brought it back; no job removes it then.';

INSERT INTO partitions (name, parent, to_at) VALUES
(
    'webhook_attempts_first',
    'webhook_attempts',
    (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '9 days') AT TIME ZONE 'UTC'
),
('webhook_attempts_rest', 'webhook_attempts', NULL),
(
    'audit_events_first', 'audit_events',
    (date_trunc('month', now() AT TIME ZONE 'UTC' + interval '31 days') + interval '1 month') AT TIME ZONE 'UTC'
),
('audit_events_rest', 'audit_events', NULL);

DO $$
DECLARE
    attempts_end timestamptz := (SELECT p.to_at FROM partitions AS p WHERE p.name = 'webhook_attempts_first');
    audit_end timestamptz := (SELECT p.to_at FROM partitions AS p WHERE p.name = 'audit_events_first');
BEGIN
    EXECUTE format(
        'ALTER TABLE webhook_attempts ADD CONSTRAINT webhook_attempts_ends CHECK (at < %L) NOT VALID', attempts_end
    );
    -- The first bits of an id are the milliseconds of its time (RFC 9562, version 7).
    EXECUTE format(
        'ALTER TABLE audit_events ADD CONSTRAINT audit_events_ends CHECK (id < %L) NOT VALID',
        (lpad(to_hex((extract(EPOCH FROM audit_end) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
    );
END
$$;

GRANT SELECT ON partitions TO tallystick_serving;
