-- name: change_attempt
-- Write the attempt $1 as it is now, and look at it again in $17 seconds (null: never),
-- unless its first call is on its way. No row comes back.
UPDATE payment_attempts SET
    provider_id = $2, names = $3::text::jsonb, url = $4, word = $5, error = $6, state = $7, received = $8,
    refunded = $9, disputed = $10, fee = $11, on_suspense = $12, foreign_amount = $13, foreign_currency = $14,
    giving_up = $15, looks = $16, next_look_at = CASE $7
        WHEN 'created' THEN next_look_at
        ELSE clock_timestamp() + make_interval(secs => $17::double precision)
    END,
    updated_at = clock_timestamp()
WHERE id = $1;

-- name: name_attempt
-- Let the provider $1 know the attempt $3 by the names $2. A name of another attempt stays with that.
INSERT INTO payment_names (provider, name, attempt_id)
SELECT
    $1 AS provider, n.name, $3 AS attempt_id
FROM unnest($2::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (provider, name) DO NOTHING;

-- name: next_attempt
-- Add the attempt $1 at the payment $2: number, provider, reasons, and the seconds to its first look.
INSERT INTO payment_attempts (id, payment_id, number, provider, route, next_look_at)
VALUES ($1, $2, $3, $4, $5::text::jsonb, clock_timestamp() + make_interval(secs => $6::double precision));

-- name: change_payment
-- Write state, amounts and revision of the payment $1, and the wish $7 if it is its first. The caller has locked it.
UPDATE payments SET
    state = $2, paid = $3, refunded = $4, disputed = $5, revision = $6, wish = coalesce(wish, $7),
    updated_at = clock_timestamp()
WHERE id = $1;

-- name: add_step
-- Add a line to a timeline: payment, number, attempt, kind, actor, state, data.
INSERT INTO payment_timeline (payment_id, no, attempt_id, kind, actor, state, data)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb);
