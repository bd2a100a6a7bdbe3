-- name: prune_inbox_events
-- Remove up to $3 events with ids below $2 that were finished more than $1 days ago; the number of events.
SELECT inbox_prune($1, $2, $3);
