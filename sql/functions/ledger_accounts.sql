-- Open accounts, up to 1,000 a call, each idempotent by its code: `opened` is false where the code was there
-- before. The arrays run in parallel; `window_limits` holds four numbers or nulls an account: hour amount, hour
-- count, day amount, day count. `data_texts` has the data of each account's first event, with which a repeated call is
-- compared. The first one counts where a code stands here twice.
CREATE OR REPLACE FUNCTION ledger_open_accounts(
    codes text[], currencies text[], floors bigint[], ceilings bigint[], transfer_maxima bigint[],
    window_limits bigint[], metadata_texts text[], data_texts text[], principal integer
) RETURNS TABLE (account_code text, account_id bigint, opened boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    batch bigint;
    now_at CONSTANT timestamptz := clock_timestamp();
    new_codes text [];
    new_ids bigint [];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(codes, currencies) AS a (code, currency)
        WHERE (length(a.code) BETWEEN 1 AND 128 AND a.currency ~ '^[A-Z][A-Z0-9]{2,11}$') IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'an account has a code of 1 to 128 characters and a currency of 3 to 12 capitals and digits'
        USING ERRCODE = 'check_violation';
    END IF;
    -- Codes are sorted, so that two calls with the same codes wait for each other in one order.
    WITH inserted AS (
        INSERT INTO accounts (code, currency, floor, ceiling, transfer_max, has_windows)
        SELECT
            a.code, a.currency, a.floor, a.ceiling, a.transfer_max,
            num_nonnulls(
                window_limits[a.n * 4 - 3], window_limits[a.n * 4 - 2], window_limits[a.n * 4 - 1],
                window_limits[a.n * 4]
            ) > 0
        FROM unnest(codes, currencies, floors, ceilings, transfer_maxima) WITH ORDINALITY
            AS a (code, currency, floor, ceiling, transfer_max, n)
        ORDER BY a.code
        ON CONFLICT (code) DO NOTHING
        RETURNING code, id
    )
    SELECT array_agg(i.code ORDER BY i.id), array_agg(i.id ORDER BY i.id) INTO new_codes, new_ids FROM inserted AS i;

    IF new_ids IS NOT NULL THEN
        PERFORM pg_current_xact_id();
        batch := nextval('batch_seq');
        INSERT INTO batches (seq, recorded_at, events) VALUES (batch, now_at, cardinality(new_ids));
        INSERT INTO account_profiles (account_id, metadata, created_by, created_at)
        SELECT new_ids[array_position(new_codes, a.code)], a.metadata::jsonb, principal, now_at
        FROM unnest(codes, metadata_texts) WITH ORDINALITY AS a (code, metadata, n)
        WHERE a.code = ANY (new_codes) AND a.n = array_position(codes, a.code);
        INSERT INTO account_windows (account_id, hour_amount_max, hour_count_max, day_amount_max, day_count_max)
        SELECT
            new_ids[array_position(new_codes, a.code)], window_limits[a.n * 4 - 3], window_limits[a.n * 4 - 2],
            window_limits[a.n * 4 - 1], window_limits[a.n * 4]
        FROM unnest(codes) WITH ORDINALITY AS a (code, n)
        WHERE a.code = ANY(new_codes) AND a.n = array_position(codes, a.code) AND num_nonnulls(
            window_limits[a.n * 4 - 3], window_limits[a.n * 4 - 2], window_limits[a.n * 4 - 1], window_limits[a.n * 4]
        ) > 0;
        INSERT INTO account_events (no, account_id, kind, data)
        SELECT
            item_no(batch, row_number() OVER (ORDER BY a.n)), new_ids[array_position(new_codes, a.code)],
            'account.created', a.data::jsonb
        FROM unnest(codes, data_texts) WITH ORDINALITY AS a (code, data, n)
        WHERE a.code = ANY (new_codes) AND a.n = array_position(codes, a.code);
    END IF;
    RETURN QUERY
    SELECT a.code, a.id, coalesce(a.code = ANY (new_codes), FALSE) FROM accounts AS a WHERE a.code = ANY (codes);
END
$$;

-- Change the state, the limits or the metadata of one account, under its lock; a null changes nothing.
-- `limits_text` is a JSON object of the limits that change, in which null lifts one; `metadata_text` one of the
-- metadata that change, in which null removes one. `refused` is null, or the cause of a refusal: `precondition` (the
-- account's revision is not the expected one), `closed` (for good), `not_empty` (only an account without balance and
-- holds can be closed), `contradiction` (floor above ceiling), `metadata` (more than `most_metadata` of them).
CREATE OR REPLACE FUNCTION ledger_change_account(
    wanted_id bigint, new_state smallint, limits_text text, metadata_text text, expected_revision bigint,
    most_metadata integer, OUT refused text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    account accounts;
    windows account_windows;
    new_metadata jsonb;
    batch bigint;
BEGIN
    PERFORM FROM accounts AS a WHERE a.id = wanted_id FOR NO KEY UPDATE;
    SELECT a.* INTO account FROM accounts AS a WHERE a.id = wanted_id;
    IF expected_revision <> account.version + account.changes THEN
        refused := 'precondition';
        RETURN;
    END IF;
    IF account.state = 2 THEN
        refused := 'closed';
        RETURN;
    END IF;
    IF new_state = 2 AND (account.balance <> 0 OR account.held <> 0) THEN
        refused := 'not_empty';
        RETURN;
    END IF;
    SELECT w.* INTO windows FROM account_windows AS w WHERE w.account_id = wanted_id;
    account := jsonb_populate_record(account, coalesce(limits_text, '{}')::jsonb);
    windows := jsonb_populate_record(windows, coalesce(limits_text, '{}')::jsonb);
    IF account.floor > account.ceiling THEN
        refused := 'contradiction';
        RETURN;
    END IF;
    SELECT p.metadata INTO new_metadata FROM account_profiles AS p WHERE p.account_id = wanted_id;
    IF metadata_text IS NOT NULL THEN
        new_metadata := jsonb_strip_nulls(new_metadata || metadata_text::jsonb);
        IF (SELECT count(*) FROM jsonb_object_keys(new_metadata)) > most_metadata THEN
            refused := 'metadata';
            RETURN;
        END IF;
        UPDATE account_profiles AS p SET metadata = new_metadata WHERE p.account_id = wanted_id;
    END IF;
    account.state := coalesce(new_state, account.state);
    account.has_windows := num_nonnulls(
        windows.hour_amount_max, windows.hour_count_max, windows.day_amount_max, windows.day_count_max
    ) > 0;

    PERFORM pg_current_xact_id();
    batch := nextval('batch_seq');
    INSERT INTO batches (seq, recorded_at, events)
    VALUES (batch, greatest(clock_timestamp(), account.recorded_at), 1);
    UPDATE accounts AS a
    SET
        state = account.state, floor = account.floor, ceiling = account.ceiling,
        transfer_max = account.transfer_max, has_windows = account.has_windows, changes = a.changes + 1
    WHERE a.id = wanted_id;
    DELETE FROM account_windows AS w WHERE w.account_id = wanted_id;
    IF account.has_windows THEN
        INSERT INTO account_windows (account_id, hour_amount_max, hour_count_max, day_amount_max, day_count_max)
        VALUES (
            wanted_id, windows.hour_amount_max, windows.hour_count_max, windows.day_amount_max, windows.day_count_max
        );
    END IF;
    INSERT INTO account_events (no, account_id, kind, data)
    VALUES (
        item_no(batch, 1), wanted_id, 'account.updated',
        jsonb_build_object(
            'state', (ARRAY['open', 'frozen', 'closed'])[account.state + 1],
            'limits', jsonb_build_object(
                'floor', account.floor, 'ceiling', account.ceiling, 'transfer_max', account.transfer_max,
                'hour_amount_max', windows.hour_amount_max, 'hour_count_max', windows.hour_count_max,
                'day_amount_max', windows.day_amount_max, 'day_count_max', windows.day_count_max
            ),
            'metadata', new_metadata
        )
    );
END
$$;

-- The version of the last entry of an account that was recorded at or before `at_time`; 0 before the first.
-- Entries hold no time of their own: versions, batches and their times rise together within an account, so a bisection
-- over the primary key finds it in about 20 seeks for a million entries, and saves an index of 40 bytes an entry.
CREATE OR REPLACE FUNCTION ledger_version_at(wanted_id bigint, at_time timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    low bigint := 0; -- recorded by then, or before the first
    high bigint; -- not recorded by then, or after the last
    middle bigint;
    was_recorded boolean;
BEGIN
    SELECT a.version + 1 INTO high FROM accounts AS a WHERE a.id = wanted_id;
    WHILE high - low > 1 LOOP
        middle := (low + high) / 2;
        SELECT b.recorded_at <= at_time INTO STRICT was_recorded
        FROM entries AS e INNER JOIN batches AS b ON b.seq = batch_of(e.no)
        WHERE e.account_id = wanted_id AND e.version = middle;
        IF was_recorded THEN
            low := middle;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END
$$;

-- The accounts of the given codes whose rows another transaction has locked at this moment. The function wants a
-- transaction of its own, since it locks the other rows until that ends.
CREATE OR REPLACE FUNCTION ledger_locked_accounts(codes text[]) RETURNS TABLE (code text)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    WITH free AS MATERIALIZED (
        SELECT a.id FROM accounts AS a WHERE a.code = ANY (codes) ORDER BY a.id FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT a.code FROM accounts AS a WHERE a.code = ANY (codes) AND NOT EXISTS (SELECT FROM free WHERE free.id = a.id)
$$;

REVOKE EXECUTE ON FUNCTION
ledger_open_accounts, ledger_change_account, ledger_version_at, ledger_locked_accounts FROM public;
GRANT EXECUTE ON FUNCTION
ledger_open_accounts, ledger_change_account, ledger_version_at, ledger_locked_accounts TO tallystick_serving;
