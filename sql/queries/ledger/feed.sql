-- name: feed_page
-- The batches of the feed from the one that holds position $1 on, with the number of their entries.
SELECT
    f.position, f.batch, f.events, f.sealed_at,
    (SELECT count(*) FROM entries AS e WHERE batch_of(e.no) = f.batch) AS entries
FROM feed AS f
WHERE f.position >= coalesce((SELECT max(g.position) FROM feed AS g WHERE g.position <= $1), 0)
ORDER BY f.position
LIMIT $2;

-- name: feed_head
-- The position of the last event of the feed.
SELECT h.position FROM feed_head AS h;

-- name: feed_account_events
-- The account events of these batches.
SELECT e.no, e.kind, e.data, a.code, r.recorded_at
FROM unnest($1::bigint[]) AS b (batch)
INNER JOIN account_events AS e ON e.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch)
INNER JOIN accounts AS a ON e.account_id = a.id
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_hold_events
-- The hold events of these batches.
SELECT
    e.no, e.id, e.operation, e.amount, e.captured, e.expires_at, h.id AS hold, h.amount AS hold_amount, a.code,
    r.recorded_at
FROM unnest($1::bigint[]) AS b (batch)
INNER JOIN hold_events AS e ON e.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch)
INNER JOIN holds AS h ON e.hold = h.no
INNER JOIN accounts AS a ON h.source_id = a.id
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_transfers
-- The numbers of the transfers of these batches.
SELECT t.no
FROM unnest($1::bigint[]) AS b (batch)
INNER JOIN transfers AS t ON t.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch);
