-- name: partition_state
-- One row for each table that has partitions: parent, ahead_seconds, stray_rows, detached.
SELECT s.parent, s.ahead_seconds, s.stray_rows, s.detached
FROM partition_state() AS s;
