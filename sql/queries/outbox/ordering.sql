-- name: lock_endpoints
-- Lock endpoints $1, in the order of their ids. The next delivery of an object is let go, and the one before it ended,
-- under this lock only. The lock is the first statement of its transaction.
SELECT id FROM webhook_endpoints
WHERE id = any((SELECT $1::uuid[])::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: release_deliveries_in_turn
-- Let the next delivery of each endpoint in $1 and object in $2 go: the waiting one of the oldest event, unless one is
-- in turn already, or an older event of the object has no deliveries yet (its fan-out is not committed). The
-- query answers the ids of those that are due now. lock_endpoints comes before.
WITH given AS (
    SELECT DISTINCT endpoint_id, object_id
    FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) AS named (endpoint_id, object_id)
),

turn AS (
    SELECT first.id
    FROM given
    INNER JOIN webhook_endpoints AS endpoint ON given.endpoint_id = endpoint.id
    CROSS JOIN
        LATERAL (
            SELECT delivery.id, delivery.event_id FROM webhook_deliveries AS delivery
            WHERE
                delivery.endpoint_id = given.endpoint_id
                AND delivery.ordered_object = given.object_id
                AND delivery.state = 'waiting'
            ORDER BY delivery.event_id
            LIMIT 1
        ) AS first
    WHERE
        NOT EXISTS (
            SELECT 1 FROM webhook_deliveries AS other
            WHERE
                other.endpoint_id = given.endpoint_id
                AND other.ordered_object = given.object_id
                AND other.state IN ('pending', 'leased')
        )
        AND NOT EXISTS (
            SELECT 1 FROM outbox_events AS older
            WHERE
                older.object_id = given.object_id
                AND older.principal_id = endpoint.principal_id
                AND older.fanned_out_at IS NULL
                AND older.id < first.event_id
        )
)

UPDATE webhook_deliveries AS delivery
SET state = 'pending', due_at = clock_timestamp()
FROM turn
WHERE delivery.id = turn.id AND delivery.state = 'waiting'
RETURNING delivery.id;

-- name: objects_that_wait
-- Up to $3 endpoints and objects with deliveries that wait, behind endpoint $1 and object $2, in their order:
-- endpoint_id, object_id, and stalled, if none of their deliveries is in turn.
WITH RECURSIVE found AS (
    (
        SELECT endpoint_id, ordered_object FROM webhook_deliveries
        WHERE
            state = 'waiting' AND ordered_object IS NOT NULL
            AND (endpoint_id, ordered_object) > ($1::uuid, $2::text)
        ORDER BY endpoint_id, ordered_object
        LIMIT 1
    )
    UNION ALL
    SELECT after.endpoint_id, after.ordered_object
    FROM found
    CROSS JOIN
        LATERAL (
            SELECT delivery.endpoint_id, delivery.ordered_object FROM webhook_deliveries AS delivery
            WHERE
                delivery.state = 'waiting' AND delivery.ordered_object IS NOT NULL
                AND (delivery.endpoint_id, delivery.ordered_object) > (found.endpoint_id, found.ordered_object)
            ORDER BY delivery.endpoint_id, delivery.ordered_object
            LIMIT 1
        ) AS after
)

SELECT
    found.endpoint_id, found.ordered_object AS object_id,
    NOT EXISTS (
        SELECT 1 FROM webhook_deliveries AS other
        WHERE
            other.endpoint_id = found.endpoint_id
            AND other.ordered_object = found.ordered_object
            AND other.state IN ('pending', 'leased')
        -- Without this the planner may read all that are due once, in place of a seek for each object.
        OFFSET 0 -- noqa: AM09
    ) AS stalled
FROM found
-- Objects are found in this order, so nothing is sorted: a sort would visit all of them first.
LIMIT $3; -- noqa: AM09
