-- name: currencies_of
-- The currencies of the accounts of the given codes.
SELECT DISTINCT currency FROM accounts WHERE code = any((SELECT $1::text[])::text[]);

-- name: find_item
-- The number that the id of a transfer, a hold or another operation stands for.
SELECT no FROM keys WHERE id = $1 AND no IS NOT NULL;

-- name: get_transfers
-- The transfers of these numbers, newest first.
SELECT
    t.no, t.id, t.kind, t.reference, t.metadata, b.recorded_at, t.effective_at, o.id AS reverses, h.id AS captures,
    coalesce(r.amount, 0) AS reversed
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
LEFT JOIN transfers AS o ON t.target = o.no
LEFT JOIN holds AS h ON t.target = h.no
LEFT JOIN reversed_amounts AS r ON t.no = r.no
WHERE t.no = any((SELECT $1::bigint[])::bigint[])
ORDER BY t.no DESC;

-- name: list_transfers
-- The numbers of a page of transfers below $1, newest first, that hold one of the pairs $7 in their metadata; null
-- filters do not filter.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
WHERE
    t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb[] IS NULL OR t.metadata @> ANY($7))
ORDER BY t.no DESC
LIMIT $8;

-- name: list_transfers_of_kind
-- The page of list_transfers for one kind.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
WHERE
    t.kind = $5 AND batch_of(t.no) <= batch_of($1) AND batch_of(t.no) >= batch_of($2)
    AND t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb[] IS NULL OR t.metadata @> ANY($7))
ORDER BY batch_of(t.no) DESC, t.no DESC
LIMIT $8;

-- name: list_transfers_by_reference
-- The page of list_transfers for one reference.
SELECT t.no
FROM transfers AS t
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
WHERE
    t.reference = $6 AND t.no < $1 AND t.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($7::jsonb[] IS NULL OR t.metadata @> ANY($7))
ORDER BY t.no DESC
LIMIT $8;

-- name: list_transfers_by_metadata
-- The page of list_transfers for metadata, which the index finds before transfers are sorted.
WITH matching AS MATERIALIZED (
    SELECT t.no FROM transfers AS t
    WHERE
        t.metadata IS NOT NULL AND t.metadata @> ANY($7::jsonb[]) AND t.no < $1 AND t.no >= $2
        AND ($5::text IS NULL OR t.kind = $5)
        AND ($6::text IS NULL OR t.reference = $6)
)

SELECT m.no
FROM matching AS m
INNER JOIN batches AS b ON b.seq = batch_of(m.no)
WHERE
    ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
ORDER BY m.no DESC
LIMIT $8;

-- name: list_transfers_of_account
-- The page of list_transfers for one account ($9), over its entries with versions above $10 and below $11; the last of
-- its legs in a transfer counts.
SELECT t.no
FROM entries AS e
INNER JOIN transfers AS t ON t.no = item_of(e.no)
INNER JOIN batches AS b ON b.seq = batch_of(t.no)
WHERE
    e.account_id = $9 AND e.version > $10 AND e.version < $11 AND e.no < $1 AND e.no >= $2
    AND ($3::timestamptz IS NULL OR b.recorded_at >= $3)
    AND ($4::timestamptz IS NULL OR b.recorded_at < $4)
    AND ($5::text IS NULL OR t.kind = $5)
    AND ($6::text IS NULL OR t.reference = $6)
    AND ($7::jsonb[] IS NULL OR t.metadata @> ANY($7))
    AND NOT EXISTS (
        SELECT FROM entries AS l
        WHERE l.account_id = e.account_id AND l.version = e.version + 1 AND item_of(l.no) = item_of(e.no)
    )
ORDER BY e.version DESC
LIMIT $8;

-- name: batch_span
-- Two numbers between which all batches lie that were recorded at or after $1 and before $2 (null: no bound).
-- The order of numbers and that of times disagree by `recorded_spread` at most, among the batches of the feed: a batch
-- that is older than $1 by more has only such before it, and one that is younger than $2 by as much only such after it.
-- Batches that are not in the feed yet are always within the span.
SELECT
    least(
        coalesce((
            SELECT b.seq + 1 FROM batches AS b
            WHERE
                b.recorded_at < $1::timestamptz - h.recorded_spread AND b.seq <= h.batch
                AND NOT EXISTS (SELECT FROM feed_gaps AS g WHERE g.batch = b.seq)
            ORDER BY b.recorded_at DESC, b.seq DESC LIMIT 1
        ), 0),
        (SELECT min(g.batch) FROM feed_gaps AS g)
    ) AS first_batch,
    greatest(
        coalesce((
            SELECT b.seq - 1 FROM batches AS b
            WHERE
                b.recorded_at >= $2::timestamptz + h.recorded_spread AND b.seq <= h.batch
                AND NOT EXISTS (SELECT FROM feed_gaps AS g WHERE g.batch = b.seq)
            ORDER BY b.recorded_at, b.seq LIMIT 1
        ), batch_of(9223372036854775807) - 1),
        (SELECT max(g.batch) FROM feed_gaps AS g),
        (
            SELECT b.seq FROM batches AS b
            WHERE b.seq > h.batch AND b.recorded_at < $2::timestamptz
            ORDER BY b.seq DESC LIMIT 1
        )
    ) AS last_batch
FROM feed_head AS h;
