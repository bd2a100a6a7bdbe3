-- name: list_dead_letters
-- Up to $7 letters with ids below $6, newest first, narrowed by provider, type, reason and time of arrival where
-- these are not null.
SELECT
    id, provider, event_id, event_type AS type, object_id, outcome AS reason, last_error, attempts, replays,
    received_at, finished_at AS dead_at
FROM inbox_events
WHERE
    state = 'dead'
    AND id < $6
    AND ($1::text IS NULL OR provider = $1)
    AND ($2::text IS NULL OR event_type = $2)
    AND ($3::text IS NULL OR outcome = $3)
    AND ($4::timestamptz IS NULL OR received_at >= $4)
    AND ($5::timestamptz IS NULL OR received_at < $5)
ORDER BY id DESC
LIMIT $7;

-- name: count_dead_letters
-- The number of letters that the filter chooses, counted up to $6.
SELECT count(*) FROM (
    SELECT 1 FROM inbox_events
    WHERE
        state = 'dead'
        AND ($1::text IS NULL OR provider = $1)
        AND ($2::text IS NULL OR event_type = $2)
        AND ($3::text IS NULL OR outcome = $3)
        AND ($4::timestamptz IS NULL OR received_at >= $4)
        AND ($5::timestamptz IS NULL OR received_at < $5)
    ORDER BY id
    LIMIT $6
) AS meant;

-- name: find_dead_letter
-- The letter with its body; no row when there is no such event or it is not dead.
SELECT
    id, provider, event_id, event_type AS type, object_id, outcome AS reason, last_error, attempts, replays,
    received_at, finished_at AS dead_at, inbox_body(id, body) AS body
FROM inbox_events
WHERE id = $1 AND state = 'dead';

-- name: inbox_state
-- The state of an event.
SELECT state FROM inbox_events
WHERE id = $1;

-- name: inbox_failures_of
-- The newest $2 failed attempts at an event, newest first.
SELECT attempt, failed_at, code, error, worker
FROM inbox_failures
WHERE inbox_id = $1
ORDER BY failed_at DESC
LIMIT $2;

-- name: inbox_actions_of
-- The newest $2 actions of people on an event, newest first.
SELECT action, done_at, actor, reason, replay_id AS replay
FROM inbox_actions
WHERE inbox_id = $1
ORDER BY done_at DESC
LIMIT $2;

-- name: replay_dead_letter
-- Put a letter back with all its attempts, and note the actor. The id when it was dead.
WITH put_back AS (
    UPDATE inbox_events
    SET
        state = 'pending', outcome = NULL, attempts = 0, replays = replays + 1, due_at = clock_timestamp(),
        finished_at = NULL
    WHERE id = $1 AND state = 'dead'
    RETURNING id
)

INSERT INTO inbox_actions (inbox_id, action, actor)
SELECT id, 'replayed' AS action, $2::text AS actor
FROM put_back
RETURNING inbox_id;

-- name: discard_dead_letter
-- Close a letter without its effect, and note the actor and the reason. The id when it was dead.
WITH closed AS (
    UPDATE inbox_events SET state = 'done', outcome = 'discarded', finished_at = clock_timestamp()
    WHERE id = $1 AND state = 'dead'
    RETURNING id
)

INSERT INTO inbox_actions (inbox_id, action, actor, reason)
SELECT id, 'discarded' AS action, $2::text AS actor, $3::text AS reason
FROM closed
RETURNING inbox_id;
