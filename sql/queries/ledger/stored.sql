-- name: stored_outcomes
-- A row a key of the given ids: its item, with the refusal where there was one.
SELECT
    k.id, k.no, k.fields, b.recorded_at, t.effective_at, h.amount, h.captured, h.expires_at, r.outcome, r.figure,
    a.code AS account
FROM keys AS k
LEFT JOIN batches AS b ON b.seq = batch_of(k.no)
LEFT JOIN hold_events AS h ON k.no = h.no
LEFT JOIN transfers AS t ON k.no = t.no
LEFT JOIN refusals AS r ON k.id = r.id
LEFT JOIN accounts AS a ON r.account_id = a.id
WHERE k.id = any((SELECT $1::uuid[])::uuid[]);

-- name: stored_entries
-- The entries of the given item numbers, the last leg of the highest number first, $3 at most.
SELECT item_of(e.no) AS item, a.code, e.amount, e.version, e.balance
FROM entries AS e
INNER JOIN accounts AS a ON e.account_id = a.id
WHERE batch_of(e.no) = any((SELECT $2::bigint[])::bigint[]) AND item_of(e.no) = any((SELECT $1::bigint[])::bigint[])
ORDER BY e.no DESC
LIMIT $3;
