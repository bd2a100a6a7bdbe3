-- name: lineage
-- The epochs of this history, oldest first, as JSON: a backup of an older schema has fewer columns.
SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.started_at), '[]')::text FROM epochs AS e;

-- name: shared
-- The last position that epoch $1 shares with the present one; 0 for an epoch that this database does not know.
SELECT coalesce(min(later.position), 0)
FROM epochs AS known
INNER JOIN epochs AS later ON known.started_at < later.started_at
WHERE known.epoch = $1;

-- name: parted_at
-- The time at which the epoch after $1 began; that of the first epoch for one that this database does not know.
SELECT coalesce(min(later.started_at), (SELECT min(e.started_at) FROM epochs AS e)) AS parted_at
FROM epochs AS known
INNER JOIN epochs AS later ON known.started_at < later.started_at
WHERE known.epoch = $1;

-- name: present
-- The present epoch's begin, no row where it is the first.
SELECT e.started_at, e.position
FROM epochs AS e
WHERE EXISTS (SELECT 1 FROM epochs AS f WHERE f.started_at < e.started_at)
ORDER BY e.started_at DESC
LIMIT 1;

-- name: forget_gaps
-- The batches that the feed waits for are forgotten. They are judged by transaction ids, which mean nothing in another
-- server, and nothing of a recovered database is in flight.
DELETE FROM feed_gaps;

-- name: adopt_lineage
-- The epochs that a backup has told of, as `lineage` returns them.
INSERT INTO epochs (epoch, started_at, reason, position)
SELECT e.epoch, e.started_at, e.reason, coalesce(e.position, 0) AS position
FROM
    jsonb_to_recordset($1::text::jsonb)
        AS e (
            epoch text, started_at timestamptz, reason text, position bigint
        )
ON CONFLICT DO NOTHING;

-- name: begin_epoch
-- The epoch that begins at the end of the feed. A clock that was set back must not put it before the one it follows.
INSERT INTO epochs (reason, position, started_at)
SELECT
    $1::text AS reason, h.position,
    greatest(
        clock_timestamp(), (SELECT max(e.started_at) FROM epochs AS e) + interval '1 microsecond'
    ) AS started_at
FROM feed_head AS h
RETURNING epoch, position;

-- name: strangers
-- The number of other sessions in this database.
SELECT count(*)
FROM pg_stat_activity AS s
WHERE s.datname = current_database() AND s.pid <> pg_backend_pid() AND s.backend_type = 'client backend';

-- name: look_again
-- Forget what this transaction has seen of other sessions.
SELECT pg_stat_clear_snapshot();

-- name: holds_anything
-- Whether the schema has a table, a sequence, a view or a function.
SELECT
    EXISTS (SELECT 1 FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace)
    OR EXISTS (SELECT 1 FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace);

-- name: aside
-- The name that the present schema is kept under when another one takes its place, and the statement that renames it.
SELECT a.name, format('ALTER SCHEMA public RENAME TO %I', a.name) AS statement
FROM (SELECT 'replaced_' || to_char(clock_timestamp(), 'YYYYMMDD_HH24MISS') AS name) AS a;

-- name: fresh_schema
-- The schema as a new database has it.
CREATE SCHEMA public AUTHORIZATION pg_database_owner;

-- name: open_schema
-- The right that everybody has in the schema of a new database.
GRANT USAGE ON SCHEMA public TO public;

-- name: serving_role
-- The role of the service, which a new server does not have.
CREATE ROLE tallystick_serving NOLOGIN;

-- name: may_serve
-- Whether this login may act as the service.
SELECT pg_has_role(current_user, 'tallystick_serving', 'MEMBER');

-- name: serve_as
-- The right of this login to act as the service.
DO $$
BEGIN
    EXECUTE format('GRANT tallystick_serving TO %I', current_user);
END
$$;

-- name: missing_roles
-- The roles among $1 that this server does not have.
SELECT r.name FROM unnest($1::text[]) AS r (name)
WHERE NOT EXISTS (SELECT 1 FROM pg_roles AS p WHERE p.rolname = r.name)
ORDER BY r.name;

-- name: roles
-- The roles that have rights at tables or functions of others.
SELECT DISTINCT r.rolname::text AS name
FROM (
    SELECT c.relacl AS acl, c.relowner AS owner FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT p.proacl AS acl, p.proowner AS owner FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
) AS o
CROSS JOIN LATERAL aclexplode(o.acl) AS a
INNER JOIN pg_roles AS r ON a.grantee = r.oid
WHERE a.grantee <> o.owner
ORDER BY name;

-- name: export_snapshot
-- The name under which other sessions see what this transaction sees.
SELECT pg_export_snapshot();

-- name: moment
-- The time, the database's name and the end of the feed as this transaction sees them.
SELECT
    clock_timestamp() AS taken_at, current_database()::text AS database, h.position,
    coalesce(encode(h.digest, 'hex'), '') AS digest,
    current_setting('server_version_num')::integer / 10000 AS server_major
FROM feed_head AS h;

-- name: applied
-- The applied files of the schema.
SELECT m.name, m.checksum FROM schema_migrations AS m ORDER BY m.name;

-- name: tables
-- The tables, each with the statement that counts its rows.
SELECT c.relname::text AS name, format('SELECT count(*) FROM %s', c.oid::regclass) AS statement
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
ORDER BY c.relname;

-- name: balances
-- Each currency with the number of its accounts, the sum of the balances above zero, and a sum over all accounts that
-- differs where one code, balance, held amount or version does.
SELECT
    a.currency, count(*) AS accounts, coalesce(sum(a.balance) FILTER (WHERE a.balance > 0), 0)::text AS owed,
    sum(
        ('x' || substr(md5(concat_ws('|', a.code, a.balance, a.held, a.version)), 1, 16))::bit(64)::bigint
    )::text AS fingerprint
FROM accounts AS a
GROUP BY a.currency
ORDER BY a.currency;

-- name: note_backup
-- Remember a finished backup.
INSERT INTO backups AS b (place, name, taken_at, position, bytes) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (place) DO UPDATE
    SET name = excluded.name, taken_at = excluded.taken_at, position = excluded.position, bytes = excluded.bytes;

-- name: analyze
-- Statistics, without which a restored database would plan badly.
ANALYZE;
