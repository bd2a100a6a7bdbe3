-- name: read_events
-- Up to $5 events of principal $1 with positions above $2 up to $3, of a type that $4 wants (empty: all), in the order
-- of their positions: id, position, event_type, object_id, body, created_at.
SELECT told.id, told.position, told.event_type, told.object_id, told.body, told.created_at
FROM outbox_events AS told
WHERE
    told.principal_id = $1
    AND told.position > $2
    AND told.position <= $3
    AND (
        $4::text[] = '{}'
        OR told.event_type = any($4::text[])
        OR EXISTS (
            SELECT 1 FROM unnest($4::text[]) AS wanted (pattern)
            WHERE right(wanted.pattern, 1) = '*' AND starts_with(told.event_type, left(wanted.pattern, -1))
        )
    )
ORDER BY told.position
LIMIT $5;

-- name: shared_position
-- The position of principal $1's last event that had one at time $2; 0 where none had, or none of them is kept.
SELECT coalesce(max(told.position), 0) AS position
FROM outbox_events AS told
WHERE told.principal_id = $1 AND told.position > 0 AND told.fanned_out_at < $2;

-- name: events_head
-- The positions of the last event of principal $1, and of the first one that is kept; no row when it has none.
SELECT last_position, first_position FROM outbox_positions
WHERE principal_id = $1;
