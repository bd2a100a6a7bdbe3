-- name: primary_position
-- How far this server's log is on the disk, in bytes. All that has been committed is before that.
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint;

-- name: replica_position
-- How far this standby has replayed the log, in bytes, and the epoch of its history; no row from a server that is none.
SELECT
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint AS replayed,
    (SELECT e.epoch FROM epochs AS e ORDER BY e.started_at DESC LIMIT 1) AS epoch
WHERE pg_is_in_recovery();
