-- name: keep_traces
-- Keep the traces $2 of the events $1. No row comes back.
INSERT INTO event_traces (event_id, traceparent)
SELECT given.event_id, given.traceparent FROM unnest($1::text::uuid[], $2::text[]) AS given (event_id, traceparent)
ON CONFLICT DO NOTHING;

-- name: traces_of
-- The traces of the events $1, with their places: place, traceparent.
SELECT asked.place, trace.traceparent FROM unnest((SELECT $1::uuid[])) WITH ORDINALITY AS asked (event_id, place)
INNER JOIN event_traces AS trace ON asked.event_id = trace.event_id;

-- name: prune_traces
-- Remove up to $2 traces of events whose ids are below $1. No row comes back.
DELETE FROM event_traces
WHERE event_id IN (SELECT old.event_id FROM event_traces AS old WHERE old.event_id < $1 ORDER BY old.event_id LIMIT $2);
