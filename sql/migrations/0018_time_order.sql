-- The sequencer remembers how far the times of batches disagree with the order of their numbers, so that a list of a
-- period knows between which numbers it has to look. An account whose time is ahead of the clock, and a clock that was
-- set back, make such a disagreement.

ALTER TABLE feed_head ADD COLUMN recorded_max timestamptz; -- the latest time of a batch of the feed
ALTER TABLE feed_head ADD COLUMN recorded_spread interval NOT NULL DEFAULT '0';

UPDATE feed_head SET
    recorded_max = (SELECT max(recorded_at) FROM batches),
    recorded_spread = coalesce((
        SELECT make_interval(secs => extract(EPOCH FROM max(ordered.latest - ordered.recorded_at)))
        FROM (SELECT recorded_at, max(recorded_at) OVER (ORDER BY seq) AS latest FROM batches) AS ordered
    ), '0');
