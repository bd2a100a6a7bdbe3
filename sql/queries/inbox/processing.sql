-- name: claim_inbox_events
-- Up to $1 events that are due, for at most $5 seconds (null: however long), in a claim of worker $2 under token $3 for
-- $4 seconds: see sql/functions/inbox_claims.sql.
SELECT
    id, provider, event_id, event_type, object_id, received_at, attempts, body, waited_seconds, more, skipped
FROM inbox_claim($1, $2, $3, $4, $5);

-- name: put_back_inbox_events
-- Put events $3 of claim $1 of worker $2 back for another attempt in $6 seconds, or give them up (null), with $4 as the
-- code and $5 as the sentence of the failure, and end the claim. The dead ones. A claim that is gone raises TS002.
SELECT id, provider, event_id, event_type, outcome, attempts, replays
FROM inbox_put_back($1, $2, $3::uuid[], $4::text[], $5::text[], $6::double precision[]);

-- name: take_over_inbox_events
-- End up to $3 claims whose worker was not seen for $1 seconds or whose lease ran out. Events that have used up $2
-- attempts are dead, because they probably kill their worker. One row for each event.
SELECT id, state, provider, event_id, event_type, outcome, attempts, replays
FROM inbox_take_over($1, $2, $3);

-- name: release_inbox_events
-- End the claims of worker $1, without counting the attempt: their events are due as before.
DELETE FROM inbox_claims
WHERE worker = $1;

-- name: account_owners
-- The principals who opened these accounts, and to whom events about them go: code, created_by.
SELECT account.code, profile.created_by FROM accounts AS account
INNER JOIN account_profiles AS profile ON account.id = profile.account_id
WHERE account.code = any((SELECT $1::text[])::text[]);
