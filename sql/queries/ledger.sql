-- name: post
-- One row: what became of each item; see sql/functions/ledger_post.sql. The arrays that every call has come as text
-- and are parsed here: the driver takes 0.4 us to encode a number of an array and 1.2 us a text, this a quarter of it.
SELECT
    batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
    item_expires
FROM ledger_post(
    $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
    $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
    $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30,
    $31
);

-- name: post_with_effects
-- The same, and what comes with what was posted, in the same transaction; see sql/functions/posting_effects.sql.
WITH posted AS MATERIALIZED (
    SELECT
        batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
        item_expires
    FROM ledger_post(
        $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
        $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
        $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29,
        $30, $31
    )
)

SELECT
    posted.*,
    posting_effects(
        $1::text::uuid[], posted.outcomes, $28, $29, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44,
        $45
    ) AS due
FROM posted;

-- name: locked_accounts
-- The accounts of the given codes whose rows are locked by somebody at this moment.
SELECT code FROM ledger_locked_accounts($1);

-- name: currencies_of
-- The currencies of the accounts of the given codes.
SELECT DISTINCT currency FROM accounts WHERE code = ANY($1::text[]);

-- name: account_codes
-- A row an account of the given ids.
SELECT id, code FROM accounts WHERE id = ANY($1::bigint[]);

-- name: stored_outcomes
-- A row a key of the given ids: what became of it, with the refusal where there was one.
SELECT
    k.id, k.no, k.fields, b.recorded_at, h.amount, h.captured, h.expires_at, r.outcome, r.figure, a.code AS account
FROM keys AS k
LEFT JOIN batches AS b ON b.seq = k.no >> 22
LEFT JOIN hold_events AS h ON k.no = h.no
LEFT JOIN refusals AS r ON k.id = r.id
LEFT JOIN accounts AS a ON r.account_id = a.id
WHERE k.id = ANY($1::uuid[]);

-- name: stored_entries
-- The entries of the given item numbers, the last leg of the highest number first, $3 at most.
SELECT (e.no >> 12) << 12 AS item, a.code, e.amount, e.version, e.balance
FROM entries AS e
INNER JOIN accounts AS a ON e.account_id = a.id
WHERE (e.no >> 22) = ANY($2::bigint[]) AND (e.no >> 12) << 12 = ANY($1::bigint[])
ORDER BY e.no DESC
LIMIT $3;

-- name: epoch
-- The epoch of this history.
SELECT epoch FROM epochs ORDER BY started_at DESC LIMIT 1;

-- name: open_accounts
-- A row a code: its id, and whether this call opened it.
SELECT account_code, account_id, opened FROM ledger_open_accounts($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: change_account
-- Null, or the reason why not.
SELECT refused FROM ledger_change_account($1, $2, $3, $4);

-- name: account_opening
-- What the account was opened with.
SELECT e.data FROM account_events AS e WHERE e.account_id = $1 ORDER BY e.no LIMIT 1;

-- name: get_account
-- The account of this code, whole.
SELECT
    a.id, a.code, a.currency, a.balance, a.held, a.version, a.floor, a.ceiling, a.transfer_max, a.state,
    w.hour_amount_max, w.hour_count_max, w.day_amount_max, w.day_count_max, p.metadata, p.created_at, a.recorded_at
FROM accounts AS a
INNER JOIN account_profiles AS p ON a.id = p.account_id
LEFT JOIN account_windows AS w ON a.id = w.account_id
WHERE a.code = $1;

-- name: list_accounts
-- A page of accounts by code, after $1; null filters do not filter.
SELECT
    a.id, a.code, a.currency, a.balance, a.held, a.version, a.floor, a.ceiling, a.transfer_max, a.state,
    w.hour_amount_max, w.hour_count_max, w.day_amount_max, w.day_count_max, p.metadata, p.created_at, a.recorded_at
FROM accounts AS a
INNER JOIN account_profiles AS p ON a.id = p.account_id
LEFT JOIN account_windows AS w ON a.id = w.account_id
WHERE
    a.code > coalesce($1::text, '')
    AND ($2::text IS NULL OR a.currency = $2)
    AND ($3::smallint IS NULL OR a.state = $3)
    AND ($4::text IS NULL OR (a.code >= $4 AND starts_with(a.code, $4)))
ORDER BY a.code
LIMIT $5;

-- name: balance_at_recorded
-- Version and balance of the account of code $1 as they had been recorded by $2.
SELECT a.currency, v.version, coalesce(e.balance, 0) AS balance
FROM accounts AS a
CROSS JOIN LATERAL ledger_version_at(a.id, $2) AS v (version)
LEFT JOIN entries AS e ON e.account_id = a.id AND e.version = v.version
WHERE a.code = $1;

-- name: balance_at_effective
-- Version of the account of code $1 recorded by $2, and the balance by effective time: what was recorded by then, less
-- what takes effect later, plus what was recorded later and takes effect by then.
SELECT
    a.currency, v.version,
    coalesce(e.balance, 0)
    - coalesce((
        SELECT sum(b.amount) FROM backdated_entries AS b
        WHERE b.account_id = a.id AND b.effective_at > $2 AND b.recorded_at <= $2
    ), 0)
    + coalesce((
        SELECT sum(b.amount) FROM backdated_entries AS b
        WHERE b.account_id = a.id AND b.effective_at <= $2 AND b.recorded_at > $2
    ), 0) AS balance
FROM accounts AS a
CROSS JOIN LATERAL ledger_version_at(a.id, $2) AS v (version)
LEFT JOIN entries AS e ON e.account_id = a.id AND e.version = v.version
WHERE a.code = $1;

-- name: statement_up
-- A page of an account's entries after version $2, up to version $3, oldest first.
SELECT
    e.version, e.amount, e.balance, b.recorded_at, coalesce(t.effective_at, b.recorded_at) AS effective_at,
    t.id AS transfer, t.kind, t.reference
FROM entries AS e
INNER JOIN batches AS b ON b.seq = e.no >> 22
INNER JOIN transfers AS t ON t.no = (e.no >> 12) << 12
WHERE e.account_id = $1 AND e.version > $2 AND e.version <= $3
ORDER BY e.version
LIMIT $4;

-- name: statement_down
-- A page of an account's entries above version $2 and below version $3, newest first.
SELECT
    e.version, e.amount, e.balance, b.recorded_at, coalesce(t.effective_at, b.recorded_at) AS effective_at,
    t.id AS transfer, t.kind, t.reference
FROM entries AS e
INNER JOIN batches AS b ON b.seq = e.no >> 22
INNER JOIN transfers AS t ON t.no = (e.no >> 12) << 12
WHERE e.account_id = $1 AND e.version > $2 AND e.version < $3
ORDER BY e.version DESC
LIMIT $4;

-- name: version_at
-- The version of the account's last entry that was recorded at or before $2.
SELECT ledger_version_at($1, $2);

-- name: find_item
-- The number that the id of a transfer, a hold or another operation stands for.
SELECT no FROM keys WHERE id = $1 AND no IS NOT NULL;

-- name: get_transfers
-- The transfers of these numbers, newest first.
SELECT
    t.no, t.id, t.kind, t.reference, t.metadata, b.recorded_at, t.effective_at, o.id AS reverses, h.id AS captures,
    coalesce(r.amount, 0) AS reversed
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = t.no >> 22
LEFT JOIN transfers AS o ON t.target = o.no
LEFT JOIN holds AS h ON t.target = h.no
LEFT JOIN reversed_amounts AS r ON t.no = r.no
WHERE t.no = ANY($1::bigint[])
ORDER BY t.no DESC;

-- name: list_transfers
-- The numbers of a page of transfers below $1, newest first; null filters do not filter.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = t.no >> 22
WHERE
    t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb IS NULL OR t.metadata @> $7)
ORDER BY t.no DESC
LIMIT $8;

-- name: list_transfers_of_kind
-- The same for one kind.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = t.no >> 22
WHERE
    t.kind = $5 AND (t.no >> 22) <= ($1::bigint >> 22) AND (t.no >> 22) >= ($2::bigint >> 22)
    AND t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb IS NULL OR t.metadata @> $7)
ORDER BY (t.no >> 22) DESC, t.no DESC
LIMIT $8;

-- name: list_transfers_by_reference
-- The same for one reference.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = t.no >> 22
WHERE
    t.reference = $6 AND t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($7::jsonb IS NULL OR t.metadata @> $7)
ORDER BY t.no DESC
LIMIT $8;

-- name: list_transfers_by_metadata
-- The same for one set of metadata, which the index finds before they are sorted.
WITH matching AS MATERIALIZED (
    SELECT t.no FROM transfers AS t
    WHERE
        t.metadata IS NOT NULL AND t.metadata @> $7 AND t.no < $1 AND t.no >= $2
        AND ($5::text IS NULL OR t.kind = $5)
        AND ($6::text IS NULL OR t.reference = $6)
)

SELECT m.no
FROM matching AS m
INNER JOIN batches AS b ON b.seq = m.no >> 22
WHERE
    ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
ORDER BY m.no DESC
LIMIT $8;

-- name: list_transfers_of_account
-- The same for one account ($9), over its entries; of several legs in a transfer, the one that no later leg follows
-- counts.
SELECT t.no
FROM entries AS e
INNER JOIN transfers AS t ON t.no = (e.no >> 12) << 12
INNER JOIN batches AS b ON b.seq = t.no >> 22
WHERE
    e.account_id = $9 AND e.no < $1 AND e.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb IS NULL OR t.metadata @> $7)
    AND NOT EXISTS (
        SELECT FROM entries AS l
        WHERE l.account_id = e.account_id AND l.version = e.version + 1 AND l.no >> 12 = e.no >> 12
    )
ORDER BY e.version DESC
LIMIT $8;

-- name: batch_span
-- The first batch that may have been recorded at or after $1, and the last that may have been recorded before $2.
-- Numbers and times are drawn one right after the other, so they can disagree by a stall of a process: a minute
-- covers that.
SELECT
    coalesce((
        SELECT b.seq FROM batches AS b WHERE b.recorded_at >= $1::timestamptz - interval '1 minute'
        ORDER BY b.recorded_at, b.seq LIMIT 1
    ), 9223372036854775807 >> 22) AS first_batch,
    coalesce((
        SELECT b.seq FROM batches AS b WHERE b.recorded_at < $2::timestamptz + interval '1 minute'
        ORDER BY b.recorded_at DESC, b.seq DESC LIMIT 1
    ), 0) AS last_batch;

-- name: get_holds
-- The holds of these numbers, newest first.
SELECT
    h.no, h.id, h.source_id, h.amount, h.captured, h.state, h.expires_at, h.kind, h.reference, h.metadata,
    h.leg_accounts, h.leg_amounts, b.recorded_at
FROM holds AS h
INNER JOIN batches AS b ON b.seq = h.no >> 22
WHERE h.no = ANY($1::bigint[])
ORDER BY h.no DESC;

-- name: list_holds
-- The numbers of a page of holds below $1, newest first, of an account ($2) or all, in a state ($3) or any.
SELECT h.no
FROM holds AS h
WHERE h.no < $1 AND ($2::bigint IS NULL OR h.source_id = $2) AND ($3::smallint IS NULL OR h.state = $3)
ORDER BY h.no DESC
LIMIT $4;

-- name: due_holds
-- Holds whose time is over, oldest first. By now(), which an index can be searched for.
SELECT h.no, h.id, h.amount, a.code
FROM holds AS h
INNER JOIN accounts AS a ON h.source_id = a.id
WHERE h.state = 0 AND h.expires_at <= now()
ORDER BY h.expires_at, h.no
LIMIT $1;

-- name: seal
-- How many batches this round numbered and sealed.
SELECT ledger_seal($1);

-- name: feed_lag
-- Seconds since the oldest batch that is not in the feed yet was recorded; 0 when there is none.
SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(b.recorded_at)), 0)::float8
FROM batches AS b
WHERE b.seq > (SELECT h.batch FROM feed_head AS h);

-- name: feed_page
-- The batches of the feed from the one that holds position $1 on, with the number of their entries.
SELECT
    f.position, f.batch, f.events, f.sealed_at,
    (SELECT count(*) FROM entries AS e WHERE (e.no >> 22) = f.batch) AS entries
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
INNER JOIN account_events AS e ON e.no BETWEEN b.batch << 22 AND ((b.batch + 1) << 22) - 1
INNER JOIN accounts AS a ON e.account_id = a.id
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_hold_events
-- The hold events of these batches.
SELECT
    e.no, e.id, e.operation, e.amount, e.captured, e.expires_at, h.id AS hold, h.amount AS hold_amount, a.code,
    r.recorded_at
FROM unnest($1::bigint[]) AS b (batch)
INNER JOIN hold_events AS e ON e.no BETWEEN b.batch << 22 AND ((b.batch + 1) << 22) - 1
INNER JOIN holds AS h ON e.hold = h.no
INNER JOIN accounts AS a ON h.source_id = a.id
INNER JOIN batches AS r ON b.batch = r.seq;

-- name: feed_transfers
-- The numbers of the transfers of these batches.
SELECT t.no
FROM unnest($1::bigint[]) AS b (batch)
INNER JOIN transfers AS t ON t.no BETWEEN b.batch << 22 AND ((b.batch + 1) << 22) - 1;
