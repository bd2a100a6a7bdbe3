-- name: payment_by_id
-- One row for each attempt at the payment $1, the oldest first: the payment and the attempt.
SELECT
    p.id, p.surface, p.caller, p.request_id, p.fingerprint, p.principal_id, p.amount, p.scale, p.currency, p.method,
    p.account, p.details::text AS details, p.state, p.wish, p.routes, p.paid, p.refunded, p.disputed, p.revision,
    p.expires_at, p.created_at, p.updated_at, a.id AS attempt_id, a.number, a.provider, a.state AS attempt_state,
    a.received, a.refunded AS attempt_refunded, a.disputed AS attempt_disputed, a.fee, a.on_suspense, a.foreign_amount,
    a.foreign_currency, a.accepted, a.foreign_returned, a.provider_id,
    a.names::text AS names, a.url, a.word, a.error, a.giving_up, a.looks,
    a.next_look_at, a.created_at AS attempt_created_at, a.expires_at AS attempt_expires_at
FROM payments AS p
INNER JOIN payment_attempts AS a ON p.id = a.payment_id
WHERE p.id = $1
ORDER BY a.number;

-- name: payment_by_key
-- Rows as in payment_by_id: the payment of the surface $1, the caller $2 and the request id $3.
SELECT
    p.id, p.surface, p.caller, p.request_id, p.fingerprint, p.principal_id, p.amount, p.scale, p.currency, p.method,
    p.account, p.details::text AS details, p.state, p.wish, p.routes, p.paid, p.refunded, p.disputed, p.revision,
    p.expires_at, p.created_at, p.updated_at, a.id AS attempt_id, a.number, a.provider, a.state AS attempt_state,
    a.received, a.refunded AS attempt_refunded, a.disputed AS attempt_disputed, a.fee, a.on_suspense, a.foreign_amount,
    a.foreign_currency, a.accepted, a.foreign_returned, a.provider_id,
    a.names::text AS names, a.url, a.word, a.error, a.giving_up, a.looks,
    a.next_look_at, a.created_at AS attempt_created_at, a.expires_at AS attempt_expires_at
FROM payments AS p
INNER JOIN payment_attempts AS a ON p.id = a.payment_id
WHERE p.surface = $1 AND p.caller = $2 AND p.request_id = $3
ORDER BY a.number;

-- name: lock_payment
-- Lock the payment $1. It is read in a statement of its own, which sees the commits of those who held the lock before.
SELECT p.id FROM payments AS p
WHERE p.id = $1
FOR NO KEY UPDATE;

-- name: attempts_by_names
-- One row for each question that has an answer: the question's number, and the attempt that the provider $2 knows under
-- the name $3, or else the one at the provider $5 whose own id is $6. $1 and $4 are the questions' numbers. The first
-- name of a question that is known counts. A row more for each account $7 that is open: its code, and the principal who
-- opened it.
(
    SELECT DISTINCT ON (found.question)
        found.question, found.payment_id, found.attempt_id, NULL::text AS code, NULL::integer AS created_by
    FROM (
        SELECT wanted.question, wanted.place, a.payment_id, a.id AS attempt_id, 1 AS rank
        FROM
            unnest((SELECT $1::integer[]), (SELECT $2::text[]), (SELECT $3::text[])) WITH ORDINALITY
                AS wanted (question, provider, name, place)
        INNER JOIN payment_names AS n ON wanted.provider = n.provider AND wanted.name = n.name
        INNER JOIN payment_attempts AS a ON n.attempt_id = a.id
        UNION ALL
        SELECT own.question, own.place, a.payment_id, a.id AS attempt_id, 2 AS rank
        FROM
            unnest((SELECT $4::integer[]), (SELECT $5::text[]), (SELECT $6::uuid[])) WITH ORDINALITY
                AS own (question, provider, id, place)
        INNER JOIN payment_attempts AS a ON own.id = a.id AND own.provider = a.provider
    ) AS found
    ORDER BY found.question, found.rank, found.place
)
UNION ALL
SELECT NULL AS question, NULL AS payment_id, NULL AS attempt_id, account.code, profile.created_by
FROM accounts AS account
INNER JOIN account_profiles AS profile ON account.id = profile.account_id
WHERE account.code = any((SELECT $7::text[])::text[]);

-- name: payment_timeline
-- The timeline of the payment $1, the oldest row first.
SELECT t.no, t.attempt_id, t.kind, t.actor, t.state, t.data::text AS data, t.recorded_at
FROM payment_timeline AS t
WHERE t.payment_id = $1
ORDER BY t.no;
