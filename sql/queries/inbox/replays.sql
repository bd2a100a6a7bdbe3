-- name: start_replay
-- The new replay, of the letters that are dead by now and that the filter $2 to $6 chooses, as it is shown.
INSERT INTO replays (
    id, provider, event_type, reason, received_from, received_before, actor, per_second, matched
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING
    id, state, provider, event_type AS type, reason, received_from, received_before, actor, per_second, matched,
    replayed, created_at, finished_at;

-- name: find_replay
-- A replay as it is shown.
SELECT
    id, state, provider, event_type AS type, reason, received_from, received_before, actor, per_second, matched,
    replayed, created_at, finished_at
FROM replays
WHERE id = $1;

-- name: list_replays
-- Up to $2 replays with ids below $1, the newest first, as they are shown.
SELECT
    id, state, provider, event_type AS type, reason, received_from, received_before, actor, per_second, matched,
    replayed, created_at, finished_at
FROM replays
WHERE id < $1
ORDER BY id DESC
LIMIT $2;

-- name: stop_replay
-- The id when it was running.
UPDATE replays SET state = 'stopped', finished_at = clock_timestamp()
WHERE id = $1 AND state = 'running'
RETURNING id;

-- name: take_due_replay
-- The replay that has been due longest, locked; none when another worker has it. First in its transaction.
SELECT id, provider, event_type, reason, received_from, received_before, actor, per_second, last_id, created_at
FROM replays
WHERE state = 'running' AND due_at <= now()
ORDER BY due_at
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: next_letters_of_replay
-- The ids, locked, of up to $8 letters after $7 that the filter chooses and that died before $6, in the order of
-- arrival. A letter that has died again since the replay began is left alone.
SELECT id FROM inbox_events
WHERE
    state = 'dead'
    AND id > $7
    AND finished_at < $6
    AND ($1::text IS NULL OR provider = $1)
    AND ($2::text IS NULL OR event_type = $2)
    AND ($3::text IS NULL OR outcome = $3)
    AND ($4::timestamptz IS NULL OR received_at >= $4)
    AND ($5::timestamptz IS NULL OR received_at < $5)
ORDER BY id
LIMIT $8
FOR UPDATE;

-- name: replay_dead_letters
-- Put these letters back with all their attempts, and note the replay $2 and its actor $3.
WITH put_back AS (
    UPDATE inbox_events
    SET
        state = 'pending', outcome = NULL, attempts = 0, replays = replays + 1, due_at = clock_timestamp(),
        finished_at = NULL
    WHERE id = any($1::uuid[]) AND state = 'dead'
    RETURNING id
)

INSERT INTO inbox_actions (inbox_id, action, actor, replay_id)
SELECT id, 'replayed' AS action, $3::text AS actor, $2::uuid AS replay_id
FROM put_back;

-- name: advance_replay
-- Note that $2 more letters were put back, up to $3; it is due again in a second, or done when $4.
UPDATE replays
SET
    replayed = replayed + $2, last_id = $3, due_at = clock_timestamp() + interval '1 second',
    state = CASE WHEN $4 THEN 'done' ELSE state END,
    finished_at = CASE WHEN $4 THEN clock_timestamp() END
WHERE id = $1;
