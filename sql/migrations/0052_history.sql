-- The lineage of the history, and the last good backup of each place.
--
-- online: yes, a column of a table of a few rows, and a table of its own

-- Up to this position of the feed the epoch has the events of the one before it; what that one had above it is lost.
ALTER TABLE epochs ADD COLUMN position bigint NOT NULL DEFAULT 0 CHECK (position >= 0);

CREATE TABLE backups (
    place text COLLATE "C" PRIMARY KEY, -- the folder or bucket, without secrets
    name text COLLATE "C" NOT NULL,
    taken_at timestamptz NOT NULL, -- the moment that the backup shows
    position bigint NOT NULL CHECK (position >= 0), -- of the feed
    bytes bigint NOT NULL CHECK (bytes > 0)
);

COMMENT ON TABLE backups IS 'One row per place of backups: the last that was finished there.';

GRANT SELECT ON backups TO tallystick_serving;
