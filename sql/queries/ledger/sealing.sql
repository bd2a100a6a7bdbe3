-- name: seal
-- The number of batches that this round numbered and sealed.
SELECT ledger_seal($1);

-- name: feed_lag
-- Seconds since the oldest batch that is not in the feed yet was recorded; 0 when there is none.
SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(b.recorded_at)), 0)::float8
FROM batches AS b
WHERE b.seq > (SELECT h.batch FROM feed_head AS h);
