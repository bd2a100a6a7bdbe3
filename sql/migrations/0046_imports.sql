-- Imports of the databases of the services before this one. What was carried over is in its own tables, under ids that
-- make a second run change nothing; this is the progress.

CREATE TABLE imports (
    service text COLLATE "C" NOT NULL CHECK (service ~ '^[a-z_]{1,32}$'),
    step text COLLATE "C" NOT NULL CHECK (step ~ '^[a-z_]{1,32}$'),
    rows_read bigint NOT NULL CHECK (rows_read >= 0),
    rows_new bigint NOT NULL CHECK (rows_new >= 0),
    rows_known bigint NOT NULL CHECK (rows_known >= 0),
    rows_refused bigint NOT NULL CHECK (rows_refused >= 0),
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz, -- null: the step is under way, or its run was ended
    PRIMARY KEY (service, step)
);

COMMENT ON TABLE imports IS 'One row per step of a service''s import: the last run of it.';

GRANT SELECT ON imports TO tallystick_serving;
