-- name: claim_inbox_events
-- Up to $1 events that are due, for at most $5 seconds (null: however long), leased to worker $2 under token $3
-- for $4 seconds. The attempt counts from here, so that an event that kills its worker runs out of attempts too.
WITH due AS (
    SELECT id FROM inbox_events
    WHERE
        state = 'pending'
        AND due_at >= coalesce(now() - make_interval(secs => $5), '-infinity')
        AND due_at <= now()
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)

UPDATE inbox_events AS item
SET
    state = 'leased', attempts = item.attempts + 1, lease_worker = $2, lease_token = $3,
    lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE item.id = any(array(SELECT due.id FROM due))
RETURNING
    item.id, item.provider, item.event_id, item.event_type, item.object_id, item.received_at, item.attempts, item.body,
    extract(EPOCH FROM now() - item.due_at)::double precision AS waited_seconds;

-- name: finish_inbox_event
-- Finish an event with outcome $3 and the reason $4 for having no effect (null: it has one). The id when the lease
-- still holds, no row when another worker has taken the event over. First in its transaction.
-- Only leased rows have a token; a condition on the state would let the planner walk over every row ever leased.
UPDATE inbox_events
SET
    state = 'done', outcome = $3, reason = $4, last_error = NULL, finished_at = clock_timestamp(), lease_worker = NULL,
    lease_token = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2
RETURNING id;

-- name: lock_inbox_object
-- Lock the first event of object $2 of provider $1, which stands for the object, so that two events of one object
-- are never applied at once by any workers. Second in its transaction, so that each transaction that waits here
-- holds only a row of its own.
SELECT id FROM inbox_events
WHERE provider = $1 AND object_id = $2
ORDER BY received_at, id
LIMIT 1
FOR UPDATE;

-- name: correct_inbox_outcome
-- Correct the outcome of an event, in the transaction that finished it.
UPDATE inbox_events SET outcome = $2, reason = $3
WHERE id = $1 AND state = 'done';

-- name: retry_inbox_event
-- Put a failed event back, due again in $3 seconds, and note the failure: a code and a sentence. The id when the
-- lease still held.
WITH put_back AS (
    UPDATE inbox_events
    SET
        state = 'pending', due_at = clock_timestamp() + make_interval(secs => $3), last_error = $5, lease_worker = NULL,
        lease_token = NULL, lease_until = NULL
    WHERE id = $1 AND lease_token = $2
    RETURNING id, attempts
)

INSERT INTO inbox_failures (inbox_id, attempt, code, error, worker)
SELECT id, attempts, $4::text AS code, $5::text AS error, $6::uuid AS worker
FROM put_back
RETURNING inbox_id AS id;

-- name: bury_inbox_event
-- Give an event up, with the reason as a code and a sentence, and note the failure. The letter when the lease
-- still held: id, provider, event_id, event_type, outcome, attempts, replays.
WITH buried AS (
    UPDATE inbox_events
    SET
        state = 'dead', outcome = $3, last_error = $4, finished_at = clock_timestamp(), lease_worker = NULL,
        lease_token = NULL, lease_until = NULL
    WHERE id = $1 AND lease_token = $2
    RETURNING id, provider, event_id, event_type, outcome, attempts, replays
),

noted AS (
    INSERT INTO inbox_failures (inbox_id, attempt, code, error, worker)
    SELECT id, attempts, $3::text AS code, $4::text AS error, $5::uuid AS worker
    FROM buried
)

SELECT id, provider, event_id, event_type, outcome, attempts, replays
FROM buried;

-- name: take_over_inbox_events
-- Free up to $3 events whose worker was not seen for $1 seconds or whose lease ran out. Events that have used up $2
-- attempts are dead, because they probably kill their worker. One row each: id, state, provider, event_id, event_type,
-- outcome, attempts, replays.
WITH lost AS (
    SELECT item.id, item.lease_worker
    FROM inbox_events AS item
    LEFT JOIN workers AS worker ON item.lease_worker = worker.id
    WHERE
        item.state = 'leased'
        AND (
            worker.id IS NULL
            OR worker.seen_at < now() - make_interval(secs => $1)
            OR item.lease_until < now()
        )
    ORDER BY item.id
    LIMIT $3
    FOR UPDATE OF item SKIP LOCKED
),

freed AS (
    UPDATE inbox_events AS item
    SET
        state = CASE WHEN item.attempts >= $2 THEN 'dead' ELSE 'pending' END,
        outcome = CASE WHEN item.attempts >= $2 THEN 'worker_lost' END,
        finished_at = CASE WHEN item.attempts >= $2 THEN clock_timestamp() END,
        due_at = clock_timestamp(), last_error = 'worker_lost: The worker that held this event is gone.',
        lease_worker = NULL, lease_token = NULL, lease_until = NULL
    FROM lost
    WHERE item.id = lost.id
    RETURNING
        item.id, item.state, item.provider, item.event_id, item.event_type, item.outcome, item.attempts, item.replays,
        item.last_error, lost.lease_worker AS worker
),

noted AS (
    INSERT INTO inbox_failures (inbox_id, attempt, code, error, worker)
    SELECT id, attempts, 'worker_lost' AS code, last_error, worker
    FROM freed
)

SELECT id, state, provider, event_id, event_type, outcome, attempts, replays
FROM freed;

-- name: release_inbox_events
-- Give back the events that worker $1 holds and has not begun, without counting the attempt.
UPDATE inbox_events
SET
    state = 'pending', attempts = attempts - 1, due_at = clock_timestamp(), lease_worker = NULL, lease_token = NULL,
    lease_until = NULL
WHERE lease_worker = $1 AND state = 'leased';
