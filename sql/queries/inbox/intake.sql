-- name: store_inbox_events
-- The ids of those of the given events that are new. The rows are sorted by key, so that two processes that store
-- the same events at once wait for each other in one order. The statement waits for a twin that is not committed
-- yet; a twin has the same event id, or (PayPal) the same transmission.
WITH stored AS (
    INSERT INTO inbox_events (id, provider, event_id, event_type, object_id, occurred_at, headers)
    SELECT
        given.id, given.provider, given.event_id, given.event_type, given.object_id, given.occurred_at, given.headers
    FROM
        unnest(
            $1::text::uuid[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[],
            $6::timestamptz[], $7::jsonb[]
        )
            AS given (id, provider, event_id, event_type, object_id, occurred_at, headers)
    ORDER BY given.provider, given.event_id
    ON CONFLICT DO NOTHING
    RETURNING id
)

INSERT INTO inbox_bodies (id, body)
SELECT given.id, given.body FROM unnest($1::text::uuid[], $8::bytea[]) AS given (id, body)
WHERE given.id IN (SELECT stored.id FROM stored)
RETURNING id;
