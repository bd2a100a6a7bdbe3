-- name: block_sender
-- Block the sender $2 for the user $1; no row comes back for one who is blocked already.
INSERT INTO blocked_senders (user_id, sender_id) VALUES ($1, $2)
ON CONFLICT (user_id, sender_id) DO NOTHING
RETURNING sender_id;

-- name: unblock_sender
-- End the block of the sender $2 by the user $1; no row comes back for one who is not blocked.
DELETE FROM blocked_senders WHERE user_id = $1 AND sender_id = $2 RETURNING sender_id;

-- name: blocked_senders
-- Up to $3 senders whom the user $1 has blocked, with ids above $2: id, phone, created_at.
SELECT s.id, s.phone, b.created_at
FROM blocked_senders AS b
INNER JOIN users AS s ON b.sender_id = s.id
WHERE b.user_id = $1 AND b.sender_id > $2
ORDER BY b.sender_id
LIMIT $3;
