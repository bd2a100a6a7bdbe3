-- name: form_batches
-- Make batches of deliveries $1 that are leased under token $3, each carried by the one in $2 at its place. The query
-- answers the ids whose lease still held: the caller rolls back unless all are there.
UPDATE webhook_deliveries AS delivery
SET
    batch_id = given.carrier,
    state = CASE WHEN delivery.id = given.carrier THEN 'leased' ELSE 'waiting' END,
    attempts = CASE WHEN delivery.id = given.carrier THEN delivery.attempts ELSE 0 END,
    lease_worker = CASE WHEN delivery.id = given.carrier THEN delivery.lease_worker END,
    lease_token = CASE WHEN delivery.id = given.carrier THEN delivery.lease_token END,
    lease_until = CASE WHEN delivery.id = given.carrier THEN delivery.lease_until END
FROM unnest($1::uuid[], $2::uuid[]) AS given (id, carrier)
WHERE delivery.id = given.id AND delivery.state = 'leased' AND delivery.lease_token = $3
RETURNING delivery.id;

-- name: carry_batches
-- Give the members of the batches that deliveries $1 carry the carriers' state: the ids of the members. The transaction
-- that changed the carriers runs this as a statement of its own: joined to theirs, the planner may read the table.
UPDATE webhook_deliveries AS member
SET
    state = CASE WHEN carrier.finished_at IS NULL THEN 'waiting' ELSE carrier.state END,
    attempts = carrier.attempts, finished_at = carrier.finished_at,
    last_status = carrier.last_status, last_error = carrier.last_error
FROM webhook_deliveries AS carrier
WHERE carrier.id = any((SELECT $1::uuid[])::uuid[]) AND member.batch_id = carrier.id AND member.id <> carrier.id
RETURNING member.id;
