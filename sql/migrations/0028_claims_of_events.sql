-- A claim of events is one row that names them, and no longer a change of each: an event's row was written three times,
-- and every index with it. An event belongs to the claim that names it until the claim is gone.

CREATE TABLE inbox_claims (
    token uuid PRIMARY KEY,
    worker uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    event_ids uuid[] NOT NULL CHECK (cardinality(event_ids) BETWEEN 1 AND 1000),
    objects text[] NOT NULL
);

COMMENT ON TABLE inbox_claims IS 'One row per batch of events that a worker has in hand; nothing else says so.';
COMMENT ON COLUMN inbox_claims.objects IS
'The objects of the events, each behind its provider: no other claim takes them.';

-- A claim reads those that are alive: an old one is never walked over, however long a foreign transaction keeps it.
CREATE INDEX inbox_claims_alive ON inbox_claims (lease_until);

UPDATE inbox_events SET
    state = 'pending', attempts = attempts - 1, lease_worker = NULL, lease_token = NULL, lease_until = NULL
WHERE state = 'leased';

ALTER TABLE inbox_events
DROP CONSTRAINT inbox_events_lease_whole,
DROP CONSTRAINT inbox_events_state_check,
DROP COLUMN lease_worker,
DROP COLUMN lease_token,
DROP COLUMN lease_until,
ADD CONSTRAINT inbox_events_state_check CHECK (state IN ('pending', 'done', 'dead'));

GRANT SELECT, INSERT, DELETE ON inbox_claims TO tallystick_serving;
