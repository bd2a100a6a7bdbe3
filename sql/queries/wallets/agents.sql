-- name: lock_agent
-- The user $1 as an agent, whose row is locked against other changes: the state is null for a user who never was one.
SELECT u.id AS user_id, u.phone, u.name, a.state, a.request_max, a.day_max, a.float_max, a.appointed_at
FROM users AS u
LEFT JOIN agents AS a ON u.id = a.user_id
WHERE u.id = $1
FOR NO KEY UPDATE OF u;

-- name: put_agent
-- Store the terms of the agent $1: state ($2), bounds ($3 to $5), and return the time of the appointment.
INSERT INTO agents AS a (user_id, state, request_max, day_max, float_max)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id) DO UPDATE
    SET
        state = excluded.state, request_max = excluded.request_max, day_max = excluded.day_max,
        float_max = excluded.float_max, updated_at = clock_timestamp()
RETURNING a.appointed_at;

-- name: set_is_agent
-- Let the user $1 act as an agent, or not ($2). No row comes back.
UPDATE users SET is_agent = $2 WHERE id = $1;

-- name: agents
-- Up to $2 agents with user ids above $1, oldest user first, of the state $3 unless null.
SELECT u.id AS user_id, u.phone, u.name, a.state, a.request_max, a.day_max, a.float_max, a.appointed_at
FROM agents AS a
INNER JOIN users AS u ON a.user_id = u.id
WHERE a.user_id > $1 AND ($3::text IS NULL OR a.state = $3)
ORDER BY a.user_id
LIMIT $2;

-- name: user_of_phone
-- The id of the user whose phone is one of the spellings $1.
SELECT u.id FROM users AS u
WHERE u.id = any(array(SELECT called.id FROM users AS called WHERE called.phone = any($1::text[])))
ORDER BY u.id
LIMIT 1;
