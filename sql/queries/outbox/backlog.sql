-- name: endpoints_due
-- Up to $2 endpoints with ids above $1 that have a delivery due, and since when: endpoint_id, since, batch_size. One
-- index seek serves each endpoint, whatever its backlog; but each walks over the dead entries of claimed deliveries.
WITH RECURSIVE waiting AS (
    (
        SELECT endpoint_id, due_at FROM webhook_deliveries
        WHERE state = 'pending' AND endpoint_id > $1
        ORDER BY endpoint_id, due_at
        LIMIT 1
    )
    UNION ALL
    SELECT after.endpoint_id, after.due_at
    FROM waiting
    CROSS JOIN
        LATERAL (
            SELECT delivery.endpoint_id, delivery.due_at FROM webhook_deliveries AS delivery
            WHERE delivery.state = 'pending' AND delivery.endpoint_id > waiting.endpoint_id
            ORDER BY delivery.endpoint_id, delivery.due_at
            LIMIT 1
        ) AS after
)

SELECT waiting.endpoint_id, waiting.due_at AS since, coalesce(endpoint.batch_size, 1) AS batch_size
FROM waiting
LEFT JOIN webhook_endpoints AS endpoint ON waiting.endpoint_id = endpoint.id
WHERE waiting.due_at <= now()
-- Endpoints are found in the order of their ids, so nothing is sorted: a sort would visit every endpoint first.
LIMIT $2; -- noqa: AM09

-- name: endpoints_due_lately
-- Up to $2 endpoints to which a delivery came due within the last $1 seconds, and since when: endpoint_id, since,
-- batch_size. An index of its own serves this query; it has the times in UTC.
WITH lately AS (
    SELECT endpoint_id, due_at FROM webhook_deliveries
    WHERE
        state = 'pending'
        AND due_at AT TIME ZONE 'UTC' >= (now() - make_interval(secs => $1)) AT TIME ZONE 'UTC'
        AND due_at AT TIME ZONE 'UTC' <= now() AT TIME ZONE 'UTC'
    -- This order is the index's own, by a column that no other index has.
    ORDER BY due_at AT TIME ZONE 'UTC', attempts
    OFFSET 0 -- noqa: AM09
),

waiting AS (
    SELECT endpoint_id, min(due_at) AS since FROM lately
    GROUP BY endpoint_id
    ORDER BY since
    LIMIT $2
)

SELECT waiting.endpoint_id, waiting.since, coalesce(endpoint.batch_size, 1) AS batch_size
FROM waiting
LEFT JOIN webhook_endpoints AS endpoint ON waiting.endpoint_id = endpoint.id;
