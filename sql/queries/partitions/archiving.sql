-- name: partition_lines
-- Up to $3 rows of the detached partition $1 behind place $2 (null: from its beginning): line, place.
SELECT l.line, l.place
FROM partition_lines($1, $2::text[], $3) AS l;

-- name: partition_columns
-- The columns of table $1 in their order: name, type.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: partition_archived
-- Note that the detached partition $1 with $2 rows lies in the archive, at $4 with digest $3: whether it was there yet.
SELECT partition_archived($1, $2, $3, $4) AS noted;

-- name: allow_an_hour
-- Let the statements of this transaction take an hour: all rows of a partition are counted. No row comes back.
SET LOCAL statement_timeout = '1h';
