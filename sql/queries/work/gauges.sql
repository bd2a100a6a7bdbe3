-- name: pulse
-- One row: the age in seconds of the oldest batch that is not in the feed yet, 0 when there is none; the seconds since
-- any worker's last heartbeat, infinite when there is no worker; the age in seconds of the newest backup, infinite when
-- there is none; and the number of dead letters, counted up to 10,000.
SELECT
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(b.recorded_at)), 0)::float8
        FROM batches AS b
        WHERE b.seq > (SELECT h.batch FROM feed_head AS h)
    ) AS feed_lag_seconds,
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - max(w.seen_at))::float8, 'Infinity')
        FROM workers AS w
    ) AS heartbeat_age_seconds,
    (
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - max(k.taken_at))::float8, 'Infinity')
        FROM backups AS k
    ) AS backup_age_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'dead'
            ORDER BY finished_at
            LIMIT 10000
        ) AS dead
    ) AS dead_letters;

-- name: latest_reports
-- One row for each provider whose report was compared: the counts by class of the latest, and its time.
SELECT DISTINCT ON (r.provider)
    r.provider, r.counts::text AS counts, r.compared_at
FROM provider_reports AS r
ORDER BY r.provider ASC, r.id DESC;
