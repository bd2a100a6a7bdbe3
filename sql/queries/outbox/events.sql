-- name: write_outbox_event
-- Store an event in the transaction whose effect it tells of. No row comes back.
INSERT INTO outbox_events (id, principal_id, event_type, object_id, body) VALUES ($1, $2, $3, $4, $5);
