-- name: now
-- The time.
SELECT clock_timestamp();

-- name: is_any_due
-- Whether an event from before $1 has no deliveries yet, or a delivery that was due at $1 waits or is being sent.
SELECT
    EXISTS (SELECT 1 FROM outbox_events WHERE fanned_out_at IS NULL AND created_at <= $1)
    OR EXISTS (
        SELECT 1 FROM webhook_deliveries
        WHERE state = 'pending' AND due_at AT TIME ZONE 'UTC' <= $1::timestamptz AT TIME ZONE 'UTC'
    )
    OR EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'leased' AND due_at <= $1) AS due;
