-- name: account_codes
-- A row an account of the given ids.
SELECT id, code FROM accounts WHERE id = any((SELECT $1::bigint[])::bigint[]);

-- name: get_holds
-- The holds of these numbers, newest first.
SELECT
    h.no, h.id, h.source_id, h.amount, h.captured, h.state, h.expires_at, h.kind, h.reference, h.metadata,
    h.leg_accounts, h.leg_amounts, h.revision, b.recorded_at
FROM holds AS h
INNER JOIN batches AS b ON b.seq = batch_of(h.no)
WHERE h.no = any((SELECT $1::bigint[])::bigint[])
ORDER BY h.no DESC;

-- name: list_holds
-- The numbers of a page of holds below $1, newest first, of an account ($2) or all, in a state ($3) or any.
SELECT h.no
FROM holds AS h
WHERE h.no < $1 AND ($2::bigint IS NULL OR h.source_id = $2) AND ($3::smallint IS NULL OR h.state = $3)
ORDER BY h.no DESC
LIMIT $4;

-- name: due_holds
-- Holds whose time is over by now(), which an index can be searched for, oldest first.
SELECT
    h.no, h.id, h.leg_amounts,
    array(
        SELECT a.code FROM unnest(h.leg_accounts) WITH ORDINALITY AS l (id, place)
        INNER JOIN accounts AS a ON l.id = a.id
        ORDER BY l.place
    ) AS codes
FROM holds AS h
WHERE h.state = 0 AND h.expires_at <= now()
ORDER BY h.expires_at, h.no
LIMIT $1;
