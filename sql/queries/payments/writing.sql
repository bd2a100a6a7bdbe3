-- name: change_attempt
-- Write the attempt $1 as it is now, and look at it again in $19 seconds (null: never), unless its first call is on its
-- way; return the time of that look.
UPDATE payment_attempts SET
    provider_id = $2, names = $3::text::jsonb, url = $4, word = $5, error = $6, state = $7, received = $8,
    refunded = $9, disputed = $10, fee = $11, on_suspense = $12, foreign_amount = $13, foreign_currency = $14,
    accepted = $15, foreign_returned = $16, giving_up = $17, looks = $18, next_look_at = CASE $7
        WHEN 'created' THEN next_look_at
        ELSE clock_timestamp() + make_interval(secs => $19::double precision)
    END,
    expires_at = $20, updated_at = clock_timestamp()
WHERE id = $1
RETURNING next_look_at;

-- name: name_attempt
-- Let the provider $1 know the attempt $3 by the names $2. A name of another attempt stays with that.
INSERT INTO payment_names (provider, name, attempt_id)
SELECT
    $1 AS provider, n.name, $3 AS attempt_id
FROM unnest($2::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (provider, name) DO NOTHING;

-- name: other_of_name
-- The attempt at another payment than $3 that the provider $1 knows by the name $2, if there is one. The statement
-- before has waited for whoever was taking the name.
SELECT a.id FROM payment_names AS n
INNER JOIN payment_attempts AS a ON n.attempt_id = a.id
WHERE n.provider = $1 AND n.name = $2 AND a.payment_id <> $3;

-- name: give_up_others
-- Let the open attempts at the payment $1 but for $2 be closed at their providers, as the money has come.
UPDATE payment_attempts SET giving_up = TRUE, next_look_at = clock_timestamp()
WHERE
    payment_id = $1 AND id <> $2 AND NOT giving_up
    AND state IN ('created', 'pending', 'processing', 'unknown');

-- name: next_attempt
-- Add the attempt $1 at the payment $2: number, provider, and the seconds to its first look.
INSERT INTO payment_attempts (id, payment_id, number, provider, next_look_at)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5::double precision));

-- name: change_payment
-- Write state, amounts, revision and wish of the payment $1, which the caller has locked; return the time.
UPDATE payments SET
    state = $2, paid = $3, refunded = $4, disputed = $5, revision = $6, wish = $7,
    updated_at = clock_timestamp()
WHERE id = $1
RETURNING updated_at;

-- name: add_step
-- Add a line to a timeline: payment, number, attempt, kind, actor, state, data.
INSERT INTO payment_timeline (payment_id, no, attempt_id, kind, actor, state, data)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb);

-- name: last_note
-- The note in the latest line of the timeline of the payment $1 that is about the attempt $2.
SELECT t.data ->> 'note' AS note FROM payment_timeline AS t
WHERE t.payment_id = $1 AND t.attempt_id = $2
ORDER BY t.no DESC
LIMIT 1;
