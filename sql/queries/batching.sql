-- name: form_batches
-- Make batches of deliveries $1 that are leased under token $3, each carried by the one in $2 at its place. The ids
-- of those whose lease still held: all of them, or it has to be taken back.
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
