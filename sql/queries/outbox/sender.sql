-- name: claim_deliveries
-- Due deliveries, leased to worker $5 under token $6 for $7 seconds: of each endpoint in $1 up to as many as $2 says,
-- of which no more carry a batch than $3 says, from the time in $4 on. One index seek serves each endpoint, so that
-- every receiver gets its share whatever the backlog of the others. url and secrets are null when the endpoint is gone;
-- batch_events and batch_bodies are null unless it carries a batch, surface and request unless it is a callback. Large
-- tables are not joined: one plan, made while they are small, has to be right when they are not.
WITH asked AS (
    SELECT * FROM
        unnest((SELECT $1::uuid[]), (SELECT $2::integer[]), (SELECT $3::integer[]), (SELECT $4::timestamptz[]))
            AS given (endpoint_id, most, most_batches, since)
),

picked AS (
    SELECT
        pick.id, asked.most_batches,
        count(pick.batch_id) OVER (PARTITION BY asked.endpoint_id ORDER BY pick.due_at, pick.id) AS batches
    FROM asked
    CROSS JOIN
        LATERAL (
            SELECT delivery.id, delivery.batch_id, delivery.due_at FROM webhook_deliveries AS delivery
            WHERE
                delivery.endpoint_id = asked.endpoint_id AND delivery.state = 'pending'
                AND delivery.due_at >= asked.since AND delivery.due_at <= now()
            ORDER BY delivery.due_at
            LIMIT asked.most
            FOR UPDATE SKIP LOCKED
        ) AS pick
),

claimed AS (
    UPDATE webhook_deliveries AS delivery
    SET
        state = 'leased', attempts = delivery.attempts + 1, lease_worker = $5, lease_token = $6,
        lease_until = clock_timestamp() + make_interval(secs => $7)
    WHERE delivery.id = any(array(SELECT picked.id FROM picked WHERE picked.batches <= picked.most_batches))
    RETURNING
        delivery.id, delivery.event_id, delivery.endpoint_id, delivery.ordered_object, delivery.batch_id,
        delivery.attempts, delivery.due_at
)

SELECT
    claimed.id, claimed.event_id, claimed.endpoint_id, claimed.ordered_object, claimed.batch_id, claimed.attempts,
    claimed.due_at, told.event_type, told.body, told.request,
    batch.events AS batch_events, batch.bodies AS batch_bodies, endpoint.url, endpoint.headers, endpoint.surface,
    endpoint.disabled_at IS NOT NULL AS disabled, endpoint.failing_since IS NOT NULL AS failing,
    coalesce(endpoint.batch_size, 1) AS batch_size,
    CASE WHEN endpoint.old_secrets_until <= now() THEN endpoint.secrets[1:1] ELSE endpoint.secrets END AS secrets,
    CASE
        WHEN endpoint.old_secrets_until <= now() THEN endpoint.signing_keys[1:1] ELSE endpoint.signing_keys
    END AS signing_keys
FROM claimed
CROSS JOIN
    LATERAL (
        SELECT sent.event_type, sent.body, sent.request FROM outbox_events AS sent
        WHERE sent.id = claimed.event_id
        OFFSET 0 -- noqa: AM09
    ) AS told
LEFT JOIN webhook_endpoints AS endpoint ON claimed.endpoint_id = endpoint.id AND endpoint.deleted_at IS NULL
LEFT JOIN
    LATERAL (
        SELECT array_agg(event.id ORDER BY event.id) AS events, array_agg(event.body ORDER BY event.id) AS bodies
        FROM webhook_deliveries AS member
        CROSS JOIN
            LATERAL (
                SELECT sent.id, sent.body FROM outbox_events AS sent
                WHERE sent.id = member.event_id
                -- One index seek serves each event: the planner may think a batch so large that it would read them all.
                OFFSET 0 -- noqa: AM09
            ) AS event
        WHERE member.batch_id = claimed.batch_id
    ) AS batch
    ON claimed.batch_id IS NOT NULL
ORDER BY claimed.endpoint_id, claimed.event_id;

-- name: fail_backlog
-- Give up $3 deliveries that are due to endpoint $1 for reason $2, and as many that wait in order, while the endpoint
-- is off or gone: id, batch_id.
WITH closed AS (
    SELECT id FROM webhook_endpoints
    WHERE id = $1 AND (disabled_at IS NOT NULL OR deleted_at IS NOT NULL)
),

due AS (
    SELECT delivery.id FROM webhook_deliveries AS delivery
    WHERE delivery.endpoint_id = $1 AND delivery.state = 'pending' AND EXISTS (SELECT FROM closed)
    ORDER BY delivery.due_at
    LIMIT $3
    FOR UPDATE OF delivery SKIP LOCKED
),

behind AS (
    SELECT delivery.id FROM webhook_deliveries AS delivery
    WHERE
        delivery.endpoint_id = $1 AND delivery.state = 'waiting' AND delivery.ordered_object IS NOT NULL
        AND EXISTS (SELECT FROM closed)
    ORDER BY delivery.ordered_object, delivery.event_id
    LIMIT $3
    FOR UPDATE OF delivery SKIP LOCKED
)

UPDATE webhook_deliveries AS delivery
SET state = 'failed', last_error = $2, finished_at = clock_timestamp()
FROM (
    SELECT id FROM due
    UNION ALL
    SELECT id FROM behind
) AS given
WHERE delivery.id = given.id
RETURNING delivery.id, delivery.batch_id;

-- name: release_deliveries
-- Give back the deliveries that worker $1 holds and has not sent, without counting the attempt. No row comes back.
UPDATE webhook_deliveries
SET
    state = 'pending', attempts = attempts - 1, due_at = clock_timestamp(),
    lease_worker = NULL, lease_token = NULL, lease_until = NULL
WHERE lease_worker = $1 AND state = 'leased';

-- name: give_back_deliveries
-- Give back the deliveries that worker $1 holds under the tokens $2 and has not sent, without counting the attempt. No
-- row comes back.
UPDATE webhook_deliveries
SET
    state = 'pending', attempts = attempts - 1, due_at = clock_timestamp(),
    lease_worker = NULL, lease_token = NULL, lease_until = NULL
WHERE lease_worker = $1 AND state = 'leased' AND lease_token = any($2::uuid[]);
