-- Claims of events. A claim is a row that names the events which a worker has in hand; it ends in the transaction that
-- finishes the last of them, so that an event is written once in its life unless it fails.
--
-- Statements that name their events say `finished_at IS NULL` and not `state = 'pending'`, which means the same: where
-- few of many events are pending, the planner would else walk over the index of all that are due.

-- Up to `most` events that are due, for at most `window_seconds` (null: however long), under a new claim; the oldest
-- arrival first. Claims are taken one at a time, by an advisory lock: a claim sees all others, takes no event of theirs
-- and no event of an object that they have in hand. `attempts` counts this one. An event whose worker was lost goes
-- alone, since it may have been what killed the worker.
--
-- Each row tells whether there is `more` that could be claimed at once, and whether events were `skipped` for their
-- objects; a row without an id tells that alone.
--
-- The commit does not wait for the disk: a claim that a crash forgets has finished nothing.
CREATE OR REPLACE FUNCTION inbox_claim(
    most integer, claimer uuid, new_token uuid, lease_seconds double precision, window_seconds double precision
) RETURNS TABLE (
    id uuid, provider text, event_id text, event_type text, object_id text, received_at timestamptz, attempts integer,
    body bytea, waited_seconds double precision, more boolean, skipped boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    now_at timestamptz;
    patience text;
    taken record;
    held uuid [];
    busy text [];
    due uuid [];
    objects text [];
    first_lost integer;
    last_chosen integer;
    is_skipped boolean := FALSE;
BEGIN
    patience := set_config('synchronous_commit', 'off', TRUE); -- an assignment costs a tenth of a statement
    PERFORM pg_advisory_xact_lock(7597117852321279085); -- "inboxclm" read as a number
    now_at := clock_timestamp();
    FOR taken IN SELECT c.event_ids, c.objects FROM inbox_claims AS c WHERE c.lease_until > now_at LOOP
        held := held || taken.event_ids;
        busy := busy || taken.objects;
    END LOOP;
    SELECT
        array_agg(d.id ORDER BY d.place), array_agg(d.object ORDER BY d.place), min(d.place) FILTER (WHERE d.lost)
    INTO due, objects, first_lost
    FROM (
        SELECT c.id, c.object, c.lost, row_number() OVER (ORDER BY c.due_at)::integer AS place
        FROM (
            SELECT
                e.id, e.due_at, inbox_object(e.provider, e.object_id) AS object,
                coalesce(e.last_error LIKE 'worker_lost:%', FALSE) AS lost
            FROM inbox_events AS e
            WHERE
                e.state = 'pending'
                AND e.due_at >= coalesce(now_at - make_interval(secs => window_seconds), '-infinity')
                AND e.due_at <= now_at
                AND (held IS NULL OR e.id NOT IN (SELECT unnest(held)))
                AND (
                    busy IS NULL OR e.object_id IS NULL
                    OR inbox_object(e.provider, e.object_id) NOT IN (SELECT unnest(busy))
                )
            ORDER BY e.due_at
            LIMIT most
        ) AS c
    ) AS d;
    IF busy IS NOT NULL THEN
        -- Few objects have two events at once, so the first of those that are due tell whether one was skipped.
        SELECT coalesce(bool_or(s.object IN (SELECT unnest(busy))), FALSE) INTO is_skipped
        FROM (
            SELECT inbox_object(e.provider, e.object_id) AS object
            FROM inbox_events AS e
            WHERE
                e.state = 'pending'
                AND e.due_at >= coalesce(now_at - make_interval(secs => window_seconds), '-infinity')
                AND e.due_at <= now_at
                AND e.id NOT IN (SELECT unnest(held))
            ORDER BY e.due_at
            LIMIT most
        ) AS s;
    END IF;
    IF due IS NULL THEN
        IF is_skipped THEN
            RETURN QUERY SELECT
                NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::text, NULL::timestamptz, NULL::integer,
                NULL::bytea, NULL::double precision, FALSE, TRUE;
        END IF;
        RETURN;
    END IF;
    last_chosen := greatest(coalesce(first_lost, most + 1) - 1, 1);
    INSERT INTO inbox_claims (token, worker, lease_until, event_ids, objects)
    VALUES (
        new_token, claimer, now_at + make_interval(secs => lease_seconds), due[:last_chosen],
        array_remove(objects[:last_chosen], NULL)
    );
    RETURN QUERY
    SELECT
        e.id, e.provider, e.event_id, e.event_type, e.object_id, e.received_at, e.attempts + 1,
        coalesce(e.body, b.body),
        extract(EPOCH FROM now_at - e.due_at)::double precision,
        cardinality(due) = most OR cardinality(due) > last_chosen, is_skipped
    FROM inbox_events AS e LEFT JOIN inbox_bodies AS b ON e.id = b.id
    WHERE e.id = ANY (due[:last_chosen])
    ORDER BY e.received_at, e.id;
END
$$;

-- The name of an object among those of all providers.
CREATE OR REPLACE FUNCTION inbox_object(provider text, object_id text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$ SELECT provider || ':' || object_id $$;

-- Hold on to a claim until the end of the transaction, or end it. Raises TS002 where the claim is gone: its events
-- belong to another worker, and nothing of this transaction may count.
CREATE OR REPLACE FUNCTION inbox_hold(claim uuid, ends boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    IF ends THEN
        DELETE FROM inbox_claims AS c WHERE c.token = claim;
    ELSE
        PERFORM FROM inbox_claims AS c WHERE c.token = claim FOR UPDATE;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the claim is gone' USING ERRCODE = 'TS002';
    END IF;
END
$$;

-- Finish events of a claim, in the transaction of their effects; return how many. Event i is about item `items[i]` of
-- the posting whose `outcomes` these are: it is applied (0), or had been applied (1); an event of a refused item stays
-- in the claim. An event without an item (0) has no effect, for the reason given. The claim ends if it `ends` and every
-- event is finished. Raises TS002 where the claim or one of the events is gone.
CREATE OR REPLACE FUNCTION inbox_finish(
    claim uuid, ids uuid[], items integer[], reasons text[], ends boolean, outcomes smallint[]
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    item integer;
    expected integer := 0;
    finished integer;
BEGIN
    FOREACH item IN ARRAY items LOOP
        IF item = 0 OR outcomes[item] IN (0, 1) THEN
            expected := expected + 1;
        END IF;
    END LOOP;
    IF ends AND expected = cardinality(ids) THEN
        DELETE FROM inbox_claims AS c WHERE c.token = claim; -- as inbox_hold does, whose call would cost as much again
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the claim is gone' USING ERRCODE = 'TS002';
        END IF;
    ELSE
        PERFORM inbox_hold(claim, FALSE);
    END IF;
    UPDATE inbox_events AS e
    SET
        state = 'done', attempts = e.attempts + 1, reason = f.reason, last_error = NULL,
        finished_at = clock_timestamp(),
        outcome = CASE
            WHEN f.item = 0 THEN 'ignored' WHEN outcomes[f.item] = 0 THEN 'applied' ELSE 'already_applied'
        END
    FROM unnest(ids, items, reasons) AS f (id, item, reason)
    WHERE e.id = f.id AND e.finished_at IS NULL AND (f.item = 0 OR outcomes[f.item] IN (0, 1));
    GET DIAGNOSTICS finished = ROW_COUNT;
    IF finished <> expected THEN
        RAISE EXCEPTION 'an event of the claim is gone' USING ERRCODE = 'TS002';
    END IF;
    RETURN finished;
END
$$;

-- Put failed events of a claim back, each due again in its `waits` seconds, or give it up (null); note the failures, as
-- a code and a sentence, and end the claim. Dead ones come back. Raises TS002 where the claim is gone.
CREATE OR REPLACE FUNCTION inbox_put_back(
    claim uuid, claimer uuid, ids uuid[], codes text[], errors text[], waits double precision[]
) RETURNS TABLE (
    id uuid, provider text, event_id text, event_type text, outcome text, attempts integer, replays integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM inbox_hold(claim, TRUE);
    RETURN QUERY
    WITH failed AS (
        UPDATE inbox_events AS e
        SET
            state = CASE WHEN f.wait IS NULL THEN 'dead' ELSE 'pending' END,
            outcome = CASE WHEN f.wait IS NULL THEN f.code END,
            finished_at = CASE WHEN f.wait IS NULL THEN clock_timestamp() END,
            due_at = CASE WHEN f.wait IS NULL THEN e.due_at ELSE clock_timestamp() + make_interval(secs => f.wait) END,
            attempts = e.attempts + 1, last_error = f.error
        FROM unnest(ids, codes, errors, waits) AS f (id, code, error, wait)
        WHERE e.id = f.id AND e.finished_at IS NULL
        RETURNING
            e.id, e.provider, e.event_id, e.event_type, e.state, e.outcome, e.attempts, e.replays, f.code, f.error
    ),

    noted AS (
        INSERT INTO inbox_failures (inbox_id, attempt, code, error, worker)
        SELECT n.id, n.attempts, n.code, n.error, claimer FROM failed AS n
    )

    SELECT d.id, d.provider, d.event_id, d.event_type, d.outcome, d.attempts, d.replays
    FROM failed AS d WHERE d.state = 'dead';
END
$$;

-- End the claims of workers that were not seen for `dead_seconds`, or whose lease ran out, `most` claims at most. Each
-- of their events has used up an attempt; one that has used up `max_attempts` is dead. One row an event comes back.
CREATE OR REPLACE FUNCTION inbox_take_over(dead_seconds double precision, max_attempts integer, most integer)
RETURNS TABLE (
    id uuid, state text, provider text, event_id text, event_type text, outcome text, attempts integer, replays integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    lost uuid [];
    workers uuid [];
BEGIN
    WITH gone AS (
        SELECT c.token FROM inbox_claims AS c
        LEFT JOIN workers AS w ON c.worker = w.id
        WHERE
            w.id IS NULL OR w.seen_at < now() - make_interval(secs => dead_seconds)
            OR c.lease_until < clock_timestamp()
        ORDER BY c.token
        LIMIT most
        FOR UPDATE OF c SKIP LOCKED
    ),

    ended AS (
        DELETE FROM inbox_claims AS c USING gone AS o WHERE c.token = o.token
        RETURNING c.worker, c.event_ids
    )

    SELECT array_agg(e.id), array_agg(n.worker) INTO lost, workers
    FROM ended AS n CROSS JOIN unnest(n.event_ids) AS e (id);
    IF lost IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH freed AS (
        UPDATE inbox_events AS e
        SET
            state = CASE WHEN e.attempts + 1 >= max_attempts THEN 'dead' ELSE 'pending' END,
            outcome = CASE WHEN e.attempts + 1 >= max_attempts THEN 'worker_lost' END,
            finished_at = CASE WHEN e.attempts + 1 >= max_attempts THEN clock_timestamp() END,
            due_at = clock_timestamp(), attempts = e.attempts + 1,
            last_error = 'worker_lost: The worker that held this event is gone.'
        FROM unnest(lost, workers) AS l (id, worker)
        WHERE e.id = l.id AND e.finished_at IS NULL
        RETURNING
            e.id, e.state, e.provider, e.event_id, e.event_type, e.outcome, e.attempts, e.replays, e.last_error,
            l.worker
    ),

    noted AS (
        INSERT INTO inbox_failures (inbox_id, attempt, code, error, worker)
        SELECT f.id, f.attempts, 'worker_lost', f.last_error, f.worker FROM freed AS f
    )

    SELECT f.id, f.state, f.provider, f.event_id, f.event_type, f.outcome, f.attempts, f.replays FROM freed AS f;
END
$$;

-- The state of an event as people see it: `leased` while a worker has it in hand.
CREATE OR REPLACE FUNCTION inbox_state(event_id uuid, state text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT CASE
        WHEN state = 'pending' AND EXISTS (
            SELECT FROM inbox_claims AS c WHERE c.lease_until > now() AND event_id = ANY (c.event_ids)
        ) THEN 'leased'
        ELSE state
    END
$$;

-- The body of an event, which stands beside it or, from before, in its own row.
CREATE OR REPLACE FUNCTION inbox_body(event_id uuid, own bytea) RETURNS bytea
LANGUAGE sql STABLE
AS $$ SELECT coalesce(own, (SELECT b.body FROM inbox_bodies AS b WHERE b.id = event_id)) $$;

REVOKE EXECUTE ON FUNCTION
inbox_claim, inbox_object, inbox_hold, inbox_finish, inbox_put_back, inbox_take_over, inbox_state,
inbox_body FROM public;
GRANT EXECUTE ON FUNCTION
inbox_claim, inbox_finish, inbox_put_back, inbox_take_over, inbox_state, inbox_body TO tallystick_serving;
