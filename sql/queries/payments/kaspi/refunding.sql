-- name: latest_refund
-- The newest refund of $2 of the payment $1 that was asked for without a key: its request id, its state, its age in
-- seconds.
SELECT
    r.request_id, r.state, extract(EPOCH FROM clock_timestamp() - r.created_at)::double precision AS age
FROM payment_refunds AS r
WHERE r.payment_id = $1 AND r.amount = $2 AND r.request_id LIKE 'same:%'
ORDER BY r.created_at DESC, r.id DESC
LIMIT 1;
