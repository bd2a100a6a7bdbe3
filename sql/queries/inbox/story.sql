-- name: inbox_event_by_id
-- One event with all its columns, and its claim if a worker has it in hand; no row where there is none.
SELECT
    item.id, item.provider, item.event_id, item.event_type, item.object_id, item.occurred_at, item.received_at,
    item.headers, inbox_body(item.id, item.body) AS body, item.outcome, item.reason, item.replays, item.due_at,
    item.last_error, item.finished_at,
    CASE WHEN claim.token IS NULL THEN item.state ELSE 'leased' END AS state,
    item.attempts + CASE WHEN claim.token IS NULL THEN 0 ELSE 1 END AS attempts,
    claim.worker AS lease_worker, claim.lease_until
FROM inbox_events AS item
LEFT JOIN
    inbox_claims AS claim
    ON item.state = 'pending' AND claim.lease_until > now() AND item.id = any(claim.event_ids)
WHERE item.id = $1;

-- name: inbox_ids_by_event
-- The ids of at most $3 events that providers call $1, of provider $2 or (null) of all. All providers are visited in
-- the order of their names, one index seek each.
WITH RECURSIVE names AS (
    (
        SELECT provider FROM inbox_events
        ORDER BY provider
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT item.provider FROM inbox_events AS item
        WHERE item.provider > names.provider
        ORDER BY item.provider
        LIMIT 1
    )
    FROM names
    WHERE names.provider IS NOT NULL
)

SELECT item.id FROM inbox_events AS item
INNER JOIN names ON item.provider = names.provider
WHERE item.event_id = $1 AND ($2::text IS NULL OR names.provider = $2)
ORDER BY item.id
LIMIT $3;

-- name: owns_source
-- Whether the source that is called $1 was registered by principal $2.
SELECT exists(SELECT 1 FROM inbox_sources WHERE name = $1 AND principal_id = $2);

-- name: owns_account
-- Whether the account with the code $1 was opened by principal $2.
SELECT exists(
    SELECT 1 FROM accounts AS account
    INNER JOIN account_profiles AS profile ON account.id = profile.account_id
    WHERE account.code = $1 AND profile.created_by = $2
);

-- name: object_of_outbox_event
-- The object (null: none) and the principal of one of our own events.
SELECT object_id, principal_id
FROM outbox_events
WHERE id = $1;

-- name: inbox_events_of_object
-- Up to $3 events about object $1 of provider $2 (null: of any), the first arrival first.
SELECT id, provider, event_id, event_type AS type, inbox_state(id, state) AS state, outcome, received_at
FROM inbox_events
WHERE object_id = $1 AND ($2::text IS NULL OR provider = $2)
ORDER BY received_at, id
LIMIT $3;

-- name: transfers_of_object
-- The numbers of up to $3 transfers that events of provider $2 (null: of any) about object $1 made, the newest
-- first. The kind of our own postings begins with the provider.
SELECT no FROM transfers
WHERE reference = $1 AND principal_id = 0 AND ($2::text IS NULL OR starts_with(kind, $2 || '.'))
ORDER BY no DESC
LIMIT $3;

-- name: emitted_about
-- Up to $4 events that we told of an object ($1, or the one event $2), of principal $3 alone or of all.
SELECT id, principal_id, event_type AS type, object_id, created_at
FROM outbox_events
WHERE (object_id = $1 OR id = $2) AND ($3::integer IS NULL OR principal_id = $3)
ORDER BY created_at, id
LIMIT $4;

-- name: deliveries_of_events
-- Up to $2 deliveries of these events, with the URLs of their endpoints.
SELECT
    delivery.id, delivery.event_id, delivery.endpoint_id, endpoint.url, delivery.state, delivery.attempts,
    delivery.due_at, delivery.last_status, delivery.last_error, delivery.finished_at
FROM webhook_deliveries AS delivery
LEFT JOIN webhook_endpoints AS endpoint ON delivery.endpoint_id = endpoint.id
WHERE delivery.event_id = any($1::uuid[])
ORDER BY delivery.event_id, delivery.endpoint_id
LIMIT $2;
