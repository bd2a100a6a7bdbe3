-- name: pulse
-- One row with numbers, each counted up to 10,000, and ages in seconds, each 0 where there is nothing: the oldest batch
-- that is not in the feed yet; any worker's last heartbeat and the newest backup, infinite when there is none; dead
-- letters, and the one that came first; events that are due; events without their deliveries; deliveries that are due;
-- open holds that have an end, and the one whose end is longest ago. At last the time of the last reconciliation, 0
-- before the first, and what it has found.
WITH told AS (
    SELECT a.created_at, a.data FROM audit_events AS a
    WHERE a.type = 'ledger.reconciled'
    ORDER BY a.id DESC
    LIMIT 1
)

SELECT
    (
        -- The first ones in their order: the index by time would be read from the beginning of all history.
        SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(first.recorded_at)), 0)::float8
        FROM (
            SELECT b.recorded_at FROM batches AS b
            WHERE b.seq > (SELECT h.batch FROM feed_head AS h)
            ORDER BY b.seq
            LIMIT 100
        ) AS first
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
            ORDER BY id
            LIMIT 10000
        ) AS dead
    ) AS dead_letters,
    coalesce((
        SELECT extract(EPOCH FROM clock_timestamp() - i.finished_at)::float8
        FROM inbox_events AS i
        WHERE i.state = 'dead'
        ORDER BY i.id
        LIMIT 1
    ), 0) AS dead_letter_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM inbox_events
            WHERE state = 'pending' AND due_at <= now()
            ORDER BY due_at
            LIMIT 10000
        ) AS due
    ) AS inbox_events,
    coalesce((
        SELECT greatest(extract(EPOCH FROM clock_timestamp() - i.due_at), 0)::float8
        FROM inbox_events AS i
        WHERE i.state = 'pending'
        ORDER BY i.due_at
        LIMIT 1
    ), 0) AS inbox_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM outbox_events
            WHERE fanned_out_at IS NULL
            ORDER BY id
            LIMIT 10000
        ) AS waiting
    ) AS outbox_events,
    coalesce((
        SELECT greatest(extract(EPOCH FROM clock_timestamp() - o.created_at), 0)::float8
        FROM outbox_events AS o
        WHERE o.fanned_out_at IS NULL
        ORDER BY o.id
        LIMIT 1
    ), 0) AS outbox_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM webhook_deliveries
            WHERE state = 'pending' AND (due_at AT TIME ZONE 'UTC') <= (now() AT TIME ZONE 'UTC')
            ORDER BY (due_at AT TIME ZONE 'UTC')
            LIMIT 10000
        ) AS due
    ) AS deliveries,
    coalesce((
        SELECT greatest(extract(EPOCH FROM clock_timestamp() - d.due_at), 0)::float8
        FROM webhook_deliveries AS d
        WHERE d.state = 'pending'
        ORDER BY (d.due_at AT TIME ZONE 'UTC')
        LIMIT 1
    ), 0) AS delivery_seconds,
    (
        SELECT count(*) FROM (
            SELECT 1 FROM holds
            WHERE state = 0 AND expires_at IS NOT NULL
            ORDER BY expires_at
            LIMIT 10000
        ) AS open
    ) AS holds,
    coalesce((
        SELECT greatest(extract(EPOCH FROM clock_timestamp() - h.expires_at), 0)::float8
        FROM holds AS h
        WHERE h.state = 0 AND h.expires_at IS NOT NULL
        ORDER BY h.expires_at
        LIMIT 1
    ), 0) AS hold_seconds,
    coalesce((SELECT extract(EPOCH FROM t.created_at)::float8 FROM told AS t), 0) AS reconciled_at,
    coalesce((SELECT (t.data ->> 'balances')::integer FROM told AS t), 0) AS wrong_balances,
    coalesce((SELECT (t.data ->> 'transfers')::integer FROM told AS t), 0) AS wrong_transfers;

-- name: latest_reports
-- One row for each provider whose report was compared: the counts by class of the latest, and its time.
SELECT DISTINCT ON (r.provider)
    r.provider, r.counts::text AS counts, r.compared_at
FROM provider_reports AS r
ORDER BY r.provider ASC, r.id DESC;

-- name: applied_files
-- The name and checksum of each file of the schema that this database has.
SELECT m.name, m.checksum FROM schema_migrations AS m
ORDER BY m.name;
