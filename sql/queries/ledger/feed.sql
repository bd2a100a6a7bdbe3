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
-- The account events of these batches. Accounts are sought one by one: a join could read all of them.
SELECT
    e.no, e.kind, e.data, (SELECT a.code FROM accounts AS a WHERE a.id = e.account_id) AS code, r.recorded_at
FROM unnest((SELECT $1::bigint[])) AS b (batch)
INNER JOIN account_events AS e ON e.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch)
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_hold_events
-- The hold events of these batches.
SELECT
    e.no, e.id, e.operation, e.amount, e.captured, e.expires_at, h.id AS hold, h.amount AS hold_amount,
    (SELECT a.code FROM accounts AS a WHERE a.id = h.source_id) AS code, r.recorded_at
FROM unnest((SELECT $1::bigint[])) AS b (batch)
INNER JOIN hold_events AS e ON e.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch)
CROSS JOIN
    -- OFFSET 0 keeps it a seek for each event.
    LATERAL (
        SELECT f.id, f.amount, f.source_id FROM holds AS f
        WHERE f.no = e.hold
        ORDER BY f.no
        OFFSET 0
    ) AS h
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_transfers
-- The numbers of the transfers of these batches.
SELECT t.no
FROM unnest((SELECT $1::bigint[])) AS b (batch)
INNER JOIN transfers AS t ON t.no BETWEEN item_no(b.batch, 0) AND last_no(b.batch);
