-- name: login
-- The login $1, if there is one: whether it has rights that the service should not have.
SELECT
    (
        r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
        OR pg_has_role(r.oid, current_user, 'member')
    ) AS powerful
FROM pg_roles AS r
WHERE r.rolname = $1;

-- name: login_statements
-- The statements that let the login $2 in with the password $3, and make it a member of the role $4; $1: it is there.
SELECT
    format(
        '%s ROLE %I LOGIN PASSWORD %L', CASE WHEN $1::boolean THEN 'ALTER' ELSE 'CREATE' END, $2::text, $3::text
    ) AS login,
    format('GRANT %I TO %I', $4::text, $2::text) AS member;

-- name: lock_login
-- Wait for another transaction that makes a login; until this one ends.
SELECT pg_advisory_xact_lock(hashtext('tallystick login'));
