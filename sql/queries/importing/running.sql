-- name: import_progress
-- One row for each step of the import of the service $1: its name, whether its last run has finished it, and the rows
-- that were refused.
SELECT
    i.step, i.done_at IS NOT NULL AS done, i.rows_refused
FROM imports AS i
WHERE i.service = $1;

-- name: record_import_step
-- Write the progress of the step $2 of the service $1: rows read, new, known and refused, and whether it is done. The
-- whole run is under way again.
WITH under_way AS (
    DELETE FROM imports
    WHERE service = $1 AND step = 'run'
)

INSERT INTO imports (service, step, rows_read, rows_new, rows_known, rows_refused, done_at)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7::boolean THEN clock_timestamp() END)
ON CONFLICT (service, step) DO UPDATE SET
    rows_read = excluded.rows_read, rows_new = excluded.rows_new, rows_known = excluded.rows_known,
    rows_refused = excluded.rows_refused, updated_at = clock_timestamp(), done_at = excluded.done_at;

-- name: end_import
-- Write that the whole run of the service $1 has ended: the next one begins anew.
INSERT INTO imports (service, step, rows_read, rows_new, rows_known, rows_refused, done_at)
VALUES ($1, 'run', 0, 0, 0, 0, clock_timestamp())
ON CONFLICT (service, step) DO UPDATE SET updated_at = clock_timestamp(), done_at = clock_timestamp();
