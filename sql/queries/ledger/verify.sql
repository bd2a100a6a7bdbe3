-- name: extents
-- The extent of the checks: the last account and the number of accounts, the entries that accounts count, the last
-- batch and the number of batches, the number of holds, and the last position of the feed.
SELECT
    coalesce((SELECT max(a.id) FROM accounts AS a), 0) AS last_account,
    (SELECT count(a.id) FROM accounts AS a) AS accounts,
    coalesce((SELECT sum(a.version) FROM accounts AS a), 0)::bigint AS entries,
    coalesce((SELECT max(b.seq) FROM batches AS b), 0) AS last_batch,
    (SELECT count(b.seq) FROM batches AS b) AS batches,
    (SELECT count(h.no) FROM holds AS h) AS holds,
    (SELECT h.position FROM feed_head AS h) AS last_position;

-- name: accounts
-- A row a kind of fault, its first: accounts with $1 < id <= $2 against their last entry and their open holds.
WITH open_holds AS (
    SELECT o.source_id, sum(o.amount - o.captured) AS held FROM holds AS o
    WHERE o.source_id > $1 AND o.source_id <= $2 AND o.state = 0
    GROUP BY o.source_id
),

found AS (
    SELECT
        a.id, a.code, a.balance, a.version, a.held, coalesce(e.balance, 0) AS entries_balance,
        coalesce(e.version, 0) AS entries_version, coalesce(h.held, 0) AS holds_held
    FROM accounts AS a
    LEFT JOIN LATERAL (
        SELECT l.version, l.balance FROM entries AS l
        WHERE l.account_id = a.id
        ORDER BY l.version DESC
        LIMIT 1
    ) AS e ON TRUE
    LEFT JOIN open_holds AS h ON a.id = h.source_id
    WHERE a.id > $1 AND a.id <= $2
),

bad AS (
    SELECT
        'account_balance' AS kind, f.id, f.code AS subject,
        format('balance %s, but its entries sum to %s', f.balance, f.entries_balance) AS detail
    FROM found AS f WHERE f.balance <> f.entries_balance
    UNION ALL
    SELECT
        'version_gap' AS kind, f.id, f.code,
        format('version %s, but its last entry is %s', f.version, f.entries_version) AS detail
    FROM found AS f WHERE f.version <> f.entries_version
    UNION ALL
    SELECT 'held' AS kind, f.id, f.code, format('held %s, but its open holds sum to %s', f.held, f.holds_held) AS detail
    FROM found AS f WHERE f.held <> f.holds_held
)

SELECT DISTINCT ON (b.kind) b.kind, b.subject, b.detail, count(*) OVER (PARTITION BY b.kind) AS found
FROM bad AS b
ORDER BY b.kind, b.id;

-- name: account_terms
-- One fault at most: accounts with $1 < id <= $2 whose currency is not what their first event says, or whose state,
-- limits or metadata are not what their last one says; each event says the whole of them.
WITH found AS (
    SELECT
        a.id, a.code,
        array_remove(ARRAY[
            CASE WHEN l.no IS NULL THEN 'events' END,
            CASE WHEN to_jsonb(a.currency) IS DISTINCT FROM f.data -> 'currency' THEN 'currency' END,
            CASE
                WHEN (ARRAY['open', 'frozen', 'closed'])[a.state + 1] <> coalesce(l.data ->> 'state', 'open')
                    THEN 'state'
            END,
            CASE
                WHEN
                    jsonb_build_object(
                        'floor', a.floor, 'ceiling', a.ceiling, 'transfer_max', a.transfer_max,
                        'hour_amount_max', w.hour_amount_max, 'hour_count_max', w.hour_count_max,
                        'day_amount_max', w.day_amount_max, 'day_count_max', w.day_count_max
                    ) IS DISTINCT FROM l.data -> 'limits'
                    -- Without the flag no posting looks at the windows.
                    OR a.has_windows <> (w.account_id IS NOT NULL)
                    THEN 'limits'
            END,
            CASE WHEN p.metadata IS DISTINCT FROM l.data -> 'metadata' THEN 'metadata' END
        ], NULL) AS differs
    FROM accounts AS a
    LEFT JOIN account_profiles AS p ON a.id = p.account_id
    LEFT JOIN account_windows AS w ON a.id = w.account_id
    LEFT JOIN LATERAL (
        SELECT e.data FROM account_events AS e WHERE e.account_id = a.id
        ORDER BY e.no
        LIMIT 1
    ) AS f ON TRUE
    LEFT JOIN LATERAL (
        SELECT e.no, e.data FROM account_events AS e WHERE e.account_id = a.id
        ORDER BY e.no DESC
        LIMIT 1
    ) AS l ON TRUE
    WHERE a.id > $1 AND a.id <= $2
)

SELECT
    'account_terms' AS kind, f.code AS subject,
    format('its %s: not what its events say', array_to_string(f.differs, ', ')) AS detail, count(*) OVER () AS found
FROM found AS f
WHERE cardinality(f.differs) > 0
ORDER BY f.id
LIMIT 1;

-- name: entries
-- One row: the next $5 entries after ($1, $2), whose balance was $3 and number $4, in the order of account and version:
-- their end, their number, and the faults among them as JSON.
WITH page AS (
    SELECT e.account_id, e.version, e.no, e.amount, e.balance
    FROM entries AS e
    WHERE (e.account_id, e.version) > ($1, $2)
    ORDER BY e.account_id, e.version
    LIMIT $5
),

chain AS (
    SELECT
        p.account_id, p.version, p.no, p.amount, p.balance, lag(p.account_id, 1, $1::bigint) OVER w AS before_account,
        lag(p.version, 1, $2::bigint) OVER w AS before_version, lag(p.balance, 1, $3::bigint) OVER w AS before_balance,
        lag(p.no, 1, $4::bigint) OVER w AS before_no
    FROM page AS p
    WINDOW w AS (ORDER BY p.account_id, p.version)
),

bad AS (
    SELECT
        'version_gap' AS kind, c.account_id, c.version,
        format(
            'follows version %s', CASE WHEN c.before_account = c.account_id THEN c.before_version ELSE 0 END
        ) AS detail
    FROM chain AS c
    WHERE c.version <> CASE WHEN c.before_account = c.account_id THEN c.before_version ELSE 0 END + 1
    UNION ALL
    SELECT
        'running_balance' AS kind, c.account_id, c.version,
        format(
            'balance %s, but %s before and an amount of %s', c.balance,
            CASE WHEN c.before_account = c.account_id THEN c.before_balance ELSE 0 END, c.amount
        ) AS detail
    FROM chain AS c
    WHERE
        c.balance <> CASE WHEN c.before_account = c.account_id THEN c.before_balance ELSE 0 END::numeric + c.amount
    UNION ALL
    SELECT
        'entry_order' AS kind, c.account_id, c.version,
        format('number %s after number %s', c.no, c.before_no) AS detail
    FROM chain AS c
    WHERE c.before_account = c.account_id AND c.no <= c.before_no
    UNION ALL
    SELECT
        'entry_without_account' AS kind, c.account_id, c.version,
        format('there is no account %s', c.account_id) AS detail
    FROM chain AS c
    WHERE c.before_account <> c.account_id AND NOT EXISTS (SELECT FROM accounts AS a WHERE a.id = c.account_id)
),

firsts AS (
    SELECT DISTINCT ON (b.kind)
        b.kind, format('%s version %s', coalesce(a.code, b.account_id::text), b.version) AS subject, b.detail,
        count(*) OVER (PARTITION BY b.kind) AS found
    FROM bad AS b
    LEFT JOIN accounts AS a ON b.account_id = a.id
    ORDER BY b.kind, b.account_id, b.version
)

SELECT
    p.account_id, p.version, p.balance, p.no, (SELECT count(c.no) FROM page AS c) AS entries,
    (SELECT json_agg(f) FROM firsts AS f) AS bad
FROM page AS p
ORDER BY p.account_id DESC, p.version DESC
LIMIT 1;

-- name: conservation
-- A row a currency whose balances do not sum to zero.
WITH bad AS (
    SELECT a.currency, sum(a.balance) AS total FROM accounts AS a
    GROUP BY a.currency
    HAVING sum(a.balance) <> 0
)

SELECT
    'conservation' AS kind, b.currency AS subject, format('all balances sum to %s', b.total) AS detail,
    count(*) OVER () AS found
FROM bad AS b
ORDER BY b.currency
LIMIT 1;

-- name: next_batches
-- The last batch of the next range after $1: at most $2 batches with at most $3 events, or one; null at the end.
WITH page AS (
    SELECT b.seq, b.events FROM batches AS b
    WHERE b.seq > $1
    ORDER BY b.seq
    LIMIT $2
),

sums AS (
    SELECT p.seq, sum(p.events) OVER (ORDER BY p.seq) - p.events AS before FROM page AS p
)

SELECT max(s.seq) FROM sums AS s WHERE s.before < $3;

-- name: items
-- A row a kind of fault, its first: entries, transfers and holds' events of the batches $1 < batch <= $2 against each
-- other.
WITH legs AS (
    SELECT item_of(e.no) AS no, a.currency, sum(e.amount) AS total
    FROM entries AS e
    LEFT JOIN accounts AS a ON e.account_id = a.id
    WHERE batch_of(e.no) > $1 AND batch_of(e.no) <= $2
    GROUP BY item_of(e.no), a.currency
),

posted AS (
    SELECT t.no, t.id, t.target FROM transfers AS t
    WHERE t.no > last_no($1) AND t.no <= last_no($2)
),

events AS (
    SELECT h.no, h.id, h.hold, h.operation FROM hold_events AS h
    WHERE h.no > last_no($1) AND h.no <= last_no($2)
),

bad AS (
    SELECT 'legs_unbalanced' AS kind, l.no, format('its entries in %s sum to %s', l.currency, l.total) AS detail
    FROM legs AS l
    WHERE l.total <> 0
    UNION ALL
    SELECT 'entry_without_transfer' AS kind, l.no, 'it has entries and no transfer' AS detail FROM legs AS l
    WHERE NOT EXISTS (SELECT FROM posted AS p WHERE p.no = l.no)
    UNION ALL
    SELECT 'transfer_without_entries' AS kind, p.no, format('transfer %s has no entries', p.id) AS detail
    FROM posted AS p
    WHERE NOT EXISTS (SELECT FROM legs AS l WHERE l.no = p.no)
    UNION ALL
    SELECT 'hold' AS kind, e.no, format('operation %s on a hold that is not there', e.id) AS detail
    FROM events AS e
    WHERE NOT EXISTS (SELECT FROM holds AS h WHERE h.no = e.hold)
    UNION ALL
    SELECT 'hold' AS kind, e.no, format('capture %s has no transfer', e.id) AS detail FROM events AS e
    WHERE
        e.operation = 2
        AND NOT EXISTS (SELECT FROM posted AS p WHERE p.no = e.no AND p.id = e.id AND p.target = e.hold)
    UNION ALL
    SELECT 'reversed_amount' AS kind, p.no, format('reversal %s is not counted in what it reverses', p.id) AS detail
    FROM posted AS p
    WHERE
        p.target IS NOT NULL
        AND NOT EXISTS (SELECT FROM events AS e WHERE e.no = p.no)
        AND NOT EXISTS (SELECT FROM reversed_amounts AS r WHERE r.no = p.target)
    UNION ALL
    SELECT 'key' AS kind, i.no, format('nothing keeps the key of %s, so it could be done again', i.id) AS detail
    FROM (
        SELECT p.no, p.id FROM posted AS p
        UNION
        SELECT e.no, e.id FROM events AS e WHERE e.operation <> 5
    ) AS i
    LEFT JOIN keys AS k ON i.id = k.id
    WHERE k.no IS DISTINCT FROM i.no
)

SELECT DISTINCT ON (b.kind)
    b.kind, format('item %s', b.no) AS subject, b.detail, count(*) OVER (PARTITION BY b.kind) AS found
FROM bad AS b
ORDER BY b.kind, b.no;

-- name: batches
-- A row a kind of fault, its first: the batches $1 < batch <= $2 against what they contain, and against the feed, which
-- has each one that is older than $3 seconds.
WITH numbers AS (
    SELECT t.no FROM transfers AS t
    WHERE t.no > last_no($1) AND t.no <= last_no($2)
    UNION
    SELECT h.no FROM hold_events AS h
    WHERE h.no > last_no($1) AND h.no <= last_no($2)
    UNION
    SELECT e.no FROM account_events AS e
    WHERE e.no > last_no($1) AND e.no <= last_no($2)
),

contents AS (
    SELECT batch_of(n.no) AS batch, count(*) AS events FROM numbers AS n
    GROUP BY batch_of(n.no)
),

stored AS (
    SELECT b.seq, b.events, b.recorded_at FROM batches AS b WHERE b.seq > $1 AND b.seq <= $2
),

head AS (
    SELECT h.batch FROM feed_head AS h
),

bad AS (
    SELECT
        'batch_events' AS kind, coalesce(b.seq, c.batch) AS batch,
        format('says %s events and contains %s', coalesce(b.events, 0), coalesce(c.events, 0)) AS detail
    FROM stored AS b
    FULL JOIN contents AS c ON b.seq = c.batch
    WHERE b.events IS DISTINCT FROM c.events
    UNION ALL
    SELECT 'feed_missing' AS kind, b.seq, 'neither in the feed nor waiting for it' AS detail
    FROM stored AS b
    CROSS JOIN head AS h
    WHERE
        b.seq <= h.batch
        AND NOT EXISTS (SELECT FROM feed AS f WHERE f.batch = b.seq)
        AND NOT EXISTS (SELECT FROM feed_gaps AS g WHERE g.batch = b.seq)
    UNION ALL
    SELECT 'feed_late' AS kind, b.seq, format('recorded at %s and not in the feed yet', b.recorded_at) AS detail
    FROM stored AS b
    CROSS JOIN head AS h
    WHERE
        b.recorded_at < clock_timestamp() - make_interval(secs => $3::float8)
        AND (b.seq > h.batch OR EXISTS (SELECT FROM feed_gaps AS g WHERE g.batch = b.seq))
)

SELECT DISTINCT ON (b.kind)
    b.kind, format('batch %s', b.batch) AS subject, b.detail, count(*) OVER (PARTITION BY b.kind) AS found
FROM bad AS b
ORDER BY b.kind, b.batch;

-- name: backdated
-- One fault at most: entries of the batches $1 < batch <= $2 that take effect at another time, against their list.
WITH expected AS (
    SELECT e.account_id, t.effective_at, b.recorded_at, e.no, e.amount
    FROM transfers AS t
    INNER JOIN batches AS b ON b.seq = batch_of(t.no)
    INNER JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND item_of(e.no) = item_of(t.no)
    WHERE
        t.no > last_no($1) AND t.no <= last_no($2)
        AND t.effective_at IS NOT NULL
)

SELECT
    'backdated' AS kind, format('entry %s', x.no) AS subject,
    format('takes effect at %s, which balances by effective time do not know', x.effective_at) AS detail,
    count(*) OVER () AS found
FROM expected AS x
LEFT JOIN backdated_entries AS d
    ON x.account_id = d.account_id AND x.effective_at = d.effective_at AND x.no = d.no
WHERE d.amount IS DISTINCT FROM x.amount OR d.recorded_at IS DISTINCT FROM x.recorded_at
ORDER BY x.no
LIMIT 1;

-- name: backdated_list
-- One row: the next $4 backdated entries after ($1, $2, $3): their end, their number, and the faults among them as
-- JSON: those that have no entry.
WITH page AS (
    SELECT d.account_id, d.effective_at, d.no, d.amount
    FROM backdated_entries AS d
    WHERE (d.account_id, d.effective_at, d.no) > ($1, $2, $3)
    ORDER BY d.account_id, d.effective_at, d.no
    LIMIT $4
),

bad AS (
    SELECT
        'backdated' AS kind, format('entry %s', p.no) AS subject, 'listed as backdated, and not there' AS detail,
        count(*) OVER () AS found
    FROM page AS p
    LEFT JOIN transfers AS t ON t.no = item_of(p.no)
    LEFT JOIN entries AS e ON batch_of(e.no) = batch_of(p.no) AND p.no = e.no
    WHERE
        t.effective_at IS DISTINCT FROM p.effective_at OR e.account_id IS DISTINCT FROM p.account_id
        OR e.amount IS DISTINCT FROM p.amount
    ORDER BY p.account_id, p.effective_at, p.no
    LIMIT 1
)

SELECT
    p.account_id, p.effective_at, p.no, (SELECT count(c.no) FROM page AS c) AS entries,
    (SELECT json_agg(b) FROM bad AS b) AS bad
FROM page AS p
ORDER BY p.account_id DESC, p.effective_at DESC, p.no DESC
LIMIT 1;

-- name: keys
-- One row: the next $2 keys after $1: their end, their number, and the faults among them as JSON: keys that point at
-- nothing.
WITH page AS (
    SELECT k.id, k.no FROM keys AS k
    WHERE k.id > $1
    ORDER BY k.id
    LIMIT $2
),

bad AS (
    SELECT
        'key' AS kind, format('key %s', p.id) AS subject,
        CASE
            WHEN p.no IS NULL THEN 'says refused, and keeps no reason' ELSE format('points at item %s', p.no)
        END AS detail, count(*) OVER () AS found
    FROM page AS p
    LEFT JOIN transfers AS t ON p.no = t.no
    LEFT JOIN hold_events AS h ON p.no = h.no
    LEFT JOIN refusals AS r ON p.id = r.id
    WHERE
        CASE
            WHEN p.no IS NULL THEN r.id IS NULL
            ELSE coalesce(h.id, t.id) IS DISTINCT FROM p.id OR r.id IS NOT NULL
        END
    ORDER BY p.id
    LIMIT 1
)

SELECT p.id, (SELECT count(c.id) FROM page AS c) AS keys, (SELECT json_agg(b) FROM bad AS b) AS bad
FROM page AS p
ORDER BY p.id DESC
LIMIT 1;

-- name: refusals
-- One row: the next $2 refusals after $1: their end, their number, and the faults among them as JSON: those that no key
-- leads to.
WITH page AS (
    SELECT r.id FROM refusals AS r
    WHERE r.id > $1
    ORDER BY r.id
    LIMIT $2
),

bad AS (
    SELECT
        'key' AS kind, format('refusal %s', p.id) AS subject, 'no key leads to it' AS detail,
        count(*) OVER () AS found
    FROM page AS p
    LEFT JOIN keys AS k ON p.id = k.id
    WHERE k.id IS NULL
    ORDER BY p.id
    LIMIT 1
)

SELECT p.id, (SELECT count(c.id) FROM page AS c) AS refusals, (SELECT json_agg(b) FROM bad AS b) AS bad
FROM page AS p
ORDER BY p.id DESC
LIMIT 1;

-- name: incoming
-- One fault at most: what open holds will bring to accounts, against their incoming amounts. All open holds are read at
-- one moment.
WITH due AS (
    SELECT l.account_id, sum(l.amount - coalesce(l.captured, 0)) AS amount
    FROM holds AS h
    CROSS JOIN
        LATERAL unnest(
            h.leg_accounts, h.leg_amounts, CASE WHEN h.captured > 0 THEN ledger_part(h.leg_amounts, h.captured) END
        ) WITH ORDINALITY AS l (account_id, amount, captured, place)
    WHERE h.state = 0 AND l.place > 1
    GROUP BY l.account_id
    HAVING sum(l.amount - coalesce(l.captured, 0)) > 0
),

bringing AS (
    SELECT a.id, a.code, a.incoming FROM accounts AS a
    WHERE a.incoming <> 0
)

SELECT
    'incoming' AS kind, coalesce(a.code, (SELECT c.code FROM accounts AS c WHERE c.id = d.account_id)) AS subject,
    format('incoming %s, but open holds bring %s', coalesce(a.incoming, 0), coalesce(d.amount, 0)) AS detail,
    count(*) OVER () AS found
FROM due AS d
FULL JOIN bringing AS a ON d.account_id = a.id
WHERE a.incoming IS DISTINCT FROM d.amount
ORDER BY coalesce(a.id, d.account_id)
LIMIT 1;

-- name: holds
-- One row: the next $2 holds after number $1: their end, their count, and the faults among them as JSON: those that
-- differ from the result of their events.
WITH page AS (
    SELECT
        h.no, h.id, h.source_id, h.amount, h.captured, h.state, h.expires_at, h.revision, h.leg_accounts, h.leg_amounts
    FROM holds AS h
    WHERE h.no > $1
    ORDER BY h.no
    LIMIT $2
),

history AS (
    SELECT
        p.no, count(e.no) AS events, sum(e.amount) FILTER (WHERE e.operation = 2) AS captured,
        max(e.no) FILTER (WHERE e.operation IN (3, 5)) AS ended, max(e.no) AS latest
    FROM page AS p
    INNER JOIN hold_events AS e ON p.no = e.hold
    GROUP BY p.no
),

bad AS (
    SELECT
        'hold' AS kind, format('hold %s', p.id) AS subject,
        format('state %s, captured %s of %s, is not what its events say', p.state, p.captured, p.amount) AS detail,
        count(*) OVER () AS found
    FROM page AS p
    LEFT JOIN history AS y ON p.no = y.no
    LEFT JOIN hold_events AS o ON y.ended = o.no
    LEFT JOIN hold_events AS l ON y.latest = l.no
    WHERE
        p.captured <> coalesce(y.captured, 0)
        OR p.revision IS DISTINCT FROM y.events
        OR p.captured IS DISTINCT FROM l.captured
        OR p.expires_at IS DISTINCT FROM l.expires_at
        OR p.state <> CASE o.operation WHEN 3 THEN 2 WHEN 5 THEN 3 ELSE (p.captured = p.amount)::integer END
        OR p.amount <> -p.leg_amounts[1]
        OR p.source_id <> p.leg_accounts[1]
        OR (SELECT sum(g.amount) FROM unnest(p.leg_amounts) AS g (amount)) <> 0
    ORDER BY p.no
    LIMIT 1
)

SELECT p.no, (SELECT count(c.no) FROM page AS c) AS holds, (SELECT json_agg(b) FROM bad AS b) AS bad
FROM page AS p
ORDER BY p.no DESC
LIMIT 1;

-- name: reversed_amounts
-- One row: the next $2 reversed transfers after number $1: their end, their count, and the faults among them as JSON:
-- those whose reversals do not sum to the amount that is kept, or sum to more than the transfer.
WITH page AS (
    SELECT r.no, r.amount, r.leg FROM reversed_amounts AS r
    WHERE r.no > $1
    ORDER BY r.no
    LIMIT $2
),

bad AS (
    SELECT
        'reversed_amount' AS kind, format('item %s', p.no) AS subject,
        format('%s reversed, but its reversals sum to %s', p.amount, coalesce(s.amount, 0)) AS detail,
        count(*) OVER () AS found
    FROM page AS p
    LEFT JOIN LATERAL (
        SELECT sum(abs(e.amount)) AS amount
        FROM transfers AS t
        INNER JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND t.no + p.leg = e.no
        WHERE t.target = p.no
    ) AS s ON TRUE
    LEFT JOIN LATERAL (
        SELECT e.amount FROM entries AS e
        WHERE batch_of(e.no) = batch_of(p.no) AND item_of(e.no) = p.no
        ORDER BY e.no
        LIMIT 1 OFFSET p.leg
    ) AS o ON TRUE
    WHERE p.amount IS DISTINCT FROM s.amount OR p.amount > coalesce(abs(o.amount), 0)
    ORDER BY p.no
    LIMIT 1
)

SELECT p.no, (SELECT count(c.no) FROM page AS c) AS originals, (SELECT json_agg(b) FROM bad AS b) AS bad
FROM page AS p
ORDER BY p.no DESC
LIMIT 1;

-- name: feed
-- One row: the next $4 rows of the feed after position $1, whose digest was $2 and which ended before position $3:
-- their end, and the faults among them as JSON. The digests are computed anew from the rows of the batches.
WITH page AS (
    SELECT f.position, f.batch, f.events, f.digest FROM feed AS f
    WHERE f.position > $1
    ORDER BY f.position
    LIMIT $4
),

chain AS (
    SELECT
        p.position, p.batch, p.events, p.digest, lag(p.digest, 1, $2::bytea) OVER w AS before_digest,
        lag(p.position + p.events, 1, $3::bigint) OVER w AS expected
    FROM page AS p
    WINDOW w AS (ORDER BY p.position)
),

bad AS (
    SELECT
        'chain' AS kind, c.position,
        format('batch %s, or what was sealed before it, is not what was sealed', c.batch) AS detail
    FROM chain AS c
    WHERE c.digest <> sha256(c.before_digest || convert_to(ledger_batch_content(c.batch), 'UTF8'))
    UNION ALL
    SELECT 'feed_order' AS kind, c.position, format('follows position %s', c.expected - 1) AS detail FROM chain AS c
    WHERE c.position <> c.expected
    UNION ALL
    SELECT
        'feed_order' AS kind, c.position,
        format('has %s events, batch %s has %s', c.events, c.batch, coalesce(b.events, 0)) AS detail
    FROM chain AS c
    LEFT JOIN batches AS b ON c.batch = b.seq
    WHERE c.events IS DISTINCT FROM b.events
),

firsts AS (
    SELECT DISTINCT ON (b.kind)
        b.kind, format('position %s', b.position) AS subject, b.detail, count(*) OVER (PARTITION BY b.kind) AS found
    FROM bad AS b
    ORDER BY b.kind, b.position
)

SELECT
    p.position, p.digest, p.position + p.events AS expected, (SELECT json_agg(f) FROM firsts AS f) AS bad
FROM page AS p
ORDER BY p.position DESC
LIMIT 1;

-- name: feed_end
-- One fault at most: the end of the feed as its head has it, against its last row.
WITH last_row AS (
    SELECT f.position + f.events - 1 AS position, f.digest FROM feed AS f
    ORDER BY f.position DESC
    LIMIT 1
)

SELECT
    'feed_order' AS kind, format('position %s', h.position) AS subject,
    format('said to be its end, but its last row ends at position %s', coalesce(l.position, 0)) AS detail,
    1::bigint AS found
FROM feed_head AS h
LEFT JOIN last_row AS l ON TRUE
WHERE h.position <> coalesce(l.position, 0) OR h.digest <> coalesce(l.digest, '\x');

-- name: last_seal
-- The end of the feed, and the digest of all of it.
SELECT h.position, h.digest FROM feed_head AS h;
