-- name: postgres_tables
-- The tables of a source in PostgreSQL.
SELECT t.table_name::text AS name
FROM information_schema.tables AS t
WHERE t.table_schema = any(current_schemas(FALSE));

-- name: mysql_tables
-- The tables of a source in MySQL.
SELECT t.table_name AS name
FROM information_schema.tables AS t
WHERE t.table_schema = database();

-- name: sqlite_tables
-- The tables of a source in SQLite.
SELECT m.name
FROM sqlite_master AS m
WHERE m.type = 'table';
