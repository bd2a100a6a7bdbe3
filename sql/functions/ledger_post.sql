-- Post one batch: up to 1,000 items of up to 4,000 legs in order, each with its own outcome, in the caller's
-- transaction.
--
-- The numbers, which tests/core/ledger/test_numbers.py holds against core/ledger:
--   operations  0 transfer, 1 hold, 2 capture, 3 void, 4 extend, 5 expire, 6 reversal
--   accounts    0 open, 1 frozen, 2 closed
--   holds       0 open, 1 captured, 2 voided, 3 expired
--   payables    0 open, 1 paid, 2 canceled, 3 rejected, 4 expired
--   outcomes    0 posted, 1 replayed_posted, 2 replayed_refused, 3 idempotency_conflict,
--               20 transfer_not_found, 21 hold_not_found, 22 account_not_found, 23 payable_not_found,
--               30 account_closed, 31 account_frozen, 32 precondition_failed, 33 period_closed,
--               34 effective_time_out_of_range, 35 effective_before_original, 40 currency_mismatch, 41 legs_unbalanced,
--               50 hold_not_open, 51 hold_expired, 52 exceeds_hold, 53 already_reversed, 54 exceeds_reversible,
--               55 hold_not_due, 56 payable_not_open,
--               60 version_mismatch, 61 balance_too_low, 62 balance_too_high, 63 revision_mismatch,
--               64 available_too_low, 65 available_too_high,
--               70 transfer_limit_exceeded, 71 insufficient_funds, 72 ceiling_exceeded, 73 hourly_amount_exceeded,
--               74 hourly_count_exceeded, 75 daily_amount_exceeded, 76 daily_count_exceeded,
--               80 balance_overflow, 90 group_failed,
--               164 available_too_low, 171 insufficient_funds, 172 ceiling_exceeded
-- A refusal of 50 to 89 is kept under its key, but for one of an `unfrozen` item. One of 164 to 172 says what its
-- number less 100 says, and is not kept: without the holds whose time is over the item would pass. Precedence:
-- core/ledger/outcomes.py.
--
-- Locks: the payables that items pay, sorted, then the accounts, sorted. Holds, reversed amounts and window usage
-- belong to accounts that the same items lock, so the account's lock covers them. Keys come last, sorted: a call that
-- waits for a key holds accounts, but no call that holds a key waits for an account, so no circle can close. A key lost
-- to a twin raises TS001, and the caller runs the batch again, which then finds the twin's outcome. An account opened
-- meanwhile raises TS001, too. A call with effective times takes closed_dates in SHARE mode after the accounts, so that
-- no date is moved until its commit; a move of a date locks nothing else.
--
-- Items: legs of item i are leg_first[i]..leg_last[i]; `leg_account` points into `account_codes`, which names each
-- account once. Captures and reversals bring the legs of the whole; ledger_part scales the part that is due now from
-- them, in units of the first leg, or of leg `item_unit[i]`. A hold takes from its first leg alone; captures, voids and
-- expiries bring all legs of the hold. An `administered` reversal may take from a frozen account. `item_revision` is
-- the revision that the item's hold, or the amount reversed that its transfer, must have. `effective_span` has two
-- numbers: how many days an effective time may lie behind and ahead. `expiry_seconds` counts from this call.
-- `item_limits` has four numbers or nulls an item, bounds on the sums that leave the account of its first leg, beside
-- that account's own limits: most in one transfer, in an hour, transfers in an hour, most in a UTC day. Arrays that no
-- item needs are null. A culprit is a leg, or, negative, a condition.
--
-- The function is long because a call of another costs as much as the work on an item. Its steps: lock, read; for each
-- item check, apply, check limits, keep or undo; then the writes, after which nothing may fail.
CREATE OR REPLACE FUNCTION ledger_post(
    ids uuid[], operations smallint[], fingerprints bigint[], fields bigint[], principals integer[], kinds text[],
    leg_first integer[], leg_last integer[], account_codes text[], leg_account integer[], leg_amount bigint[],
    twins integer[], groups integer[], amounts bigint[], targets bigint[], item_target integer[],
    currencies text[], reference_texts text[], metadata_texts text[], effective_times timestamptz[],
    expiry_times timestamptz[], condition_item integer[], condition_account integer[], condition_version bigint[],
    condition_min bigint[], condition_max bigint[], dry_run boolean,
    payable_ids uuid[] DEFAULT NULL, item_payable integer[] DEFAULT NULL, item_limits bigint[] DEFAULT NULL,
    unfrozen boolean[] DEFAULT NULL, condition_revision bigint[] DEFAULT NULL,
    condition_available_min bigint[] DEFAULT NULL, condition_available_max bigint[] DEFAULT NULL,
    item_revision bigint[] DEFAULT NULL, item_unit integer[] DEFAULT NULL, administered boolean[] DEFAULT NULL,
    expiry_seconds integer[] DEFAULT NULL, effective_span integer[] DEFAULT NULL,
    OUT batch bigint, OUT recorded timestamptz, OUT outcomes smallint[], OUT culprits integer[], OUT figures bigint[],
    OUT leg_version bigint[], OUT leg_balance bigint[], OUT leg_posted bigint[], OUT item_amount bigint[],
    OUT item_captured bigint[], OUT item_expires timestamptz[], OUT item_effective timestamptz[]
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
    top CONSTANT bigint := 4611686018427387903; -- 2^62 - 1: two of them still add up within a bigint
    item_count CONSTANT integer := cardinality(ids);
    leg_count CONSTANT integer := cardinality(leg_account);
    condition_count CONSTANT integer := coalesce(cardinality(condition_item), 0);
    -- the accounts, null where no account has the code, and as the item in hand finds them
    account_ids bigint []; locked integer; read integer;
    balance bigint []; held bigint []; version bigint []; floors bigint []; ceilings bigint []; maxima bigint [];
    state smallint []; currency text []; windowed boolean []; last_recorded timestamptz; has_windows boolean;
    incoming bigint []; changes bigint []; before bigint []; touched integer [];
    -- use of the windows so far, with this batch; set only when an account has window limits
    hour_max bigint []; hour_uses_max bigint []; day_max bigint []; day_uses_max bigint [];
    hour_sum bigint []; hour_uses bigint []; day_sum bigint []; day_uses bigint [];
    window_sum bigint []; window_uses bigint []; begun bigint [];
    -- the holds and transfers that items name
    hold_amount bigint []; hold_captured bigint []; hold_state smallint []; hold_expires timestamptz [];
    hold_revision integer []; hold_legs integer []; reversed bigint []; reversed_leg smallint [];
    original_effective timestamptz [];
    -- the bounds of effective times; set only when an item has one
    closed timestamptz []; earliest timestamptz; latest timestamptz;
    -- the payables that items pay: 0 open, else the figure of outcome 56
    payable_state smallint []; payable_reusable boolean []; payable_expires timestamptz []; old_payable smallint [];
    payable integer; first_limit integer;
    leg_no bigint [];
    -- the group in hand, and the values that are put back when it fails
    in_group integer := 0; group_first integer; group_failed boolean := FALSE;
    old_balance bigint []; old_held bigint []; old_version bigint []; old_captured bigint []; old_state smallint [];
    old_incoming bigint []; old_changes bigint []; old_revision integer [];
    old_expires timestamptz []; old_reversed bigint []; old_hour_sum bigint []; old_hour_uses bigint [];
    old_day_sum bigint []; old_day_uses bigint []; old_window_sum bigint []; old_window_uses bigint [];
    -- the item in hand
    operation smallint; outcome smallint; culprit integer; figure bigint; first_leg integer; last_leg integer;
    leg integer; account integer; amount bigint; target integer; whole bigint; done bigint; rest bigint;
    parts bigint []; earlier bigint []; unit integer; applied boolean; excused boolean; lapsed_held bigint; lapsed_incoming bigint;
    code smallint; spare bigint; net bigint; total bigint; mixed boolean; prior integer; balanced boolean;
    cursor_condition integer := 1; condition integer;
    now_at timestamptz; taken record; events integer := 0; keyed integer; refused integer; stored integer; has_targets boolean; has_holds boolean;
BEGIN
    outcomes := array_fill(-1::smallint, ARRAY[item_count]);
    culprits := array_fill(0, ARRAY[item_count]);
    figures := array_fill(NULL::bigint, ARRAY[item_count]);
    item_amount := figures;
    item_captured := figures;
    leg_version := array_fill(0::bigint, ARRAY[leg_count]);
    leg_balance := leg_version;
    leg_posted := leg_amount;
    leg_no := leg_version;
    has_targets := targets IS NOT NULL;
    has_holds := has_targets OR 1 = ANY (operations);

    -- Locks come first, reads next: the second statement sees the commits of those who held the locks before.
    IF payable_ids IS NOT NULL THEN
        PERFORM FROM payables AS p WHERE p.id = ANY (payable_ids) ORDER BY p.id FOR NO KEY UPDATE;
        SELECT
            array_agg(array_position(ARRAY['open', 'paid', 'canceled', 'rejected', 'expired'], p.state) - 1),
            array_agg(p.reusable), array_agg(p.expires_at)
        INTO payable_state, payable_reusable, payable_expires
        FROM (
            SELECT found.* FROM unnest(payable_ids) WITH ORDINALITY AS wanted (id, ordinal)
            LEFT JOIN payables AS found ON wanted.id = found.id
            ORDER BY wanted.ordinal
        ) AS p;
    END IF;
    PERFORM FROM accounts AS a WHERE a.code = ANY (account_codes) ORDER BY a.id FOR NO KEY UPDATE;
    GET DIAGNOSTICS locked = ROW_COUNT;
    SELECT
        array_agg(a.id), array_agg(a.balance), array_agg(a.held), array_agg(a.version), array_agg(a.floor),
        array_agg(a.ceiling), array_agg(a.transfer_max), array_agg(a.state), array_agg(a.currency),
        array_agg(a.incoming), array_agg(a.changes), array_agg(a.has_windows), max(a.recorded_at),
        coalesce(bool_or(a.has_windows), FALSE), count(a.id)
    INTO
        account_ids, balance, held, version, floors, ceilings, maxima, state, currency, incoming, changes, windowed,
        last_recorded, has_windows, read
    FROM (
        SELECT found.* FROM unnest(account_codes) WITH ORDINALITY AS wanted (code, ordinal)
        LEFT JOIN accounts AS found ON wanted.code = found.code
        ORDER BY wanted.ordinal
    ) AS a;
    IF read <> locked THEN
        RAISE EXCEPTION 'an account of this batch was opened after the locks were taken' USING ERRCODE = 'TS001';
    END IF;
    now_at := clock_timestamp();
    before := balance;
    touched := array_fill(0, ARRAY[coalesce(cardinality(account_codes), 0)]);
    IF has_windows THEN
        SELECT
            array_agg(u.hour_amount_max), array_agg(u.hour_count_max), array_agg(u.day_amount_max),
            array_agg(u.day_count_max), array_agg(u.hour_sum), array_agg(u.hour_uses), array_agg(u.day_sum),
            array_agg(u.day_uses)
        INTO hour_max, hour_uses_max, day_max, day_uses_max, hour_sum, hour_uses, day_sum, day_uses
        FROM (SELECT w.* FROM ledger_window_usage(account_ids, now_at) AS w ORDER BY w.ordinal) AS u;
        window_sum := array_fill(0::bigint, ARRAY[cardinality(account_codes)]);
        window_uses := window_sum;
    END IF;
    IF has_targets THEN
        SELECT
            array_agg(t.amount), array_agg(t.captured), array_agg(t.state), array_agg(t.expires_at),
            array_agg(t.revision), array_agg(t.legs), array_agg(t.reversed), array_agg(t.leg), array_agg(t.effective_at)
        INTO
            hold_amount, hold_captured, hold_state, hold_expires, hold_revision, hold_legs, reversed, reversed_leg,
            original_effective
        FROM (
            SELECT
                h.amount, h.captured, h.state, h.expires_at, h.revision, cardinality(h.leg_amounts) AS legs,
                coalesce(r.amount, 0) AS reversed, r.leg, coalesce(o.effective_at, b.recorded_at) AS effective_at
            FROM unnest(targets) WITH ORDINALITY AS wanted (no, ordinal)
            LEFT JOIN holds AS h ON wanted.no = h.no
            LEFT JOIN reversed_amounts AS r ON wanted.no = r.no
            LEFT JOIN transfers AS o ON wanted.no = o.no
            LEFT JOIN batches AS b ON batch_of(o.no) = b.seq
            ORDER BY wanted.ordinal
        ) AS t;
    END IF;
    IF expiry_seconds IS NOT NULL THEN
        expiry_times := coalesce(expiry_times, array_fill(NULL::timestamptz, ARRAY[item_count]));
        FOR i IN 1..item_count LOOP
            expiry_times[i] := coalesce(now_at + make_interval(secs => expiry_seconds[i]), expiry_times[i]);
        END LOOP;
    END IF;
    IF has_targets OR expiry_times IS NOT NULL THEN
        item_expires := array_fill(NULL::timestamptz, ARRAY[item_count]);
    END IF;
    IF effective_times IS NOT NULL THEN
        LOCK TABLE closed_dates IN SHARE MODE;
        SELECT array_agg(c.closed_before) INTO closed
        FROM (
            SELECT d.closed_before FROM unnest(currency) WITH ORDINALITY AS wanted (currency, ordinal)
            LEFT JOIN closed_dates AS d ON wanted.currency = d.currency
            ORDER BY wanted.ordinal
        ) AS c;
        earliest := now_at - make_interval(days => effective_span[1]);
        latest := now_at + make_interval(days => effective_span[2]);
    END IF;

    -- Keys are looked at before the state: 1 done before, 2 refused before, 3 another body under the key.
    FOR taken IN
        SELECT wanted.ordinal::integer AS item, k.no, k.fingerprint, k.fields
        FROM unnest(ids) WITH ORDINALITY AS wanted (id, ordinal)
        INNER JOIN keys AS k ON wanted.id = k.id
    LOOP
        outcomes[taken.item] := CASE
            WHEN taken.fingerprint <> fingerprints[taken.item] THEN 3 WHEN taken.no IS NULL THEN 2 ELSE 1
        END;
        figures[taken.item] := taken.fields;
    END LOOP;

    FOR i IN 1..item_count LOOP
        IF groups IS NOT NULL AND groups[i] <> in_group THEN
            in_group := groups[i];
            group_first := i;
            group_failed := FALSE;
            IF in_group > 0 THEN
                old_balance := balance; old_held := held; old_version := version; old_incoming := incoming;
                old_changes := changes; old_revision := hold_revision;
                old_captured := hold_captured; old_state := hold_state; old_expires := hold_expires;
                old_reversed := reversed; old_hour_sum := hour_sum; old_hour_uses := hour_uses;
                old_day_sum := day_sum; old_day_uses := day_uses; old_window_sum := window_sum;
                old_window_uses := window_uses; old_payable := payable_state;
            END IF;
        END IF;
        outcome := outcomes[i];
        IF outcome < 0 AND twins[i] > 0 THEN
            -- The key stands earlier in this batch. A conflict settled nothing, so the item before the conflict counts.
            prior := twins[i];
            WHILE outcomes[prior] = 3 LOOP
                prior := twins[prior];
            END LOOP;
            IF outcomes[prior] < 3 OR (outcomes[prior] BETWEEN 50 AND 89 AND unfrozen[prior] IS NOT TRUE) THEN
                outcome := CASE
                    WHEN fingerprints[prior] <> fingerprints[i] THEN 3 WHEN outcomes[prior] < 2 THEN 1 ELSE 2
                END;
                figures[i] := fields[prior];
            END IF;
        END IF;
        IF outcome = 1 THEN
            outcomes[i] := 1;
            CONTINUE;
        END IF;
        IF group_failed THEN
            outcomes[i] := CASE WHEN outcome < 0 THEN 90 ELSE outcome END;
            CONTINUE;
        END IF;

        culprit := 0;
        figure := figures[i];
        first_leg := leg_first[i];
        last_leg := leg_last[i];
        applied := FALSE;
        <<check>>
        BEGIN
            IF outcome > 0 THEN
                EXIT check;
            END IF;
            outcome := 0;
            operation := operations[i];
            target := item_target[i];
            IF operation BETWEEN 2 AND 5 AND hold_state[target] IS NULL THEN
                outcome := 21;
                EXIT check;
            END IF;

            -- 22, 30, 31: the accounts exist and may move.
            total := 0;
            mixed := FALSE;
            FOR leg IN first_leg..last_leg LOOP
                account := leg_account[leg];
                IF state[account] IS NULL THEN
                    outcome := 22;
                    culprit := leg;
                    EXIT check;
                END IF;
                -- A condition that holds a query is run as a whole statement, and cost each leg of every item 5 us here.
                IF state[account] > 0 AND (outcome = 0 OR (outcome = 31 AND state[account] = 2))
                    AND operation IN (0, 1, 2, 6) THEN
                    excused := FALSE;
                    IF operation = 6 AND state[account] = 1 AND administered[i] THEN
                        SELECT sum(leg_amount[l.leg]) < 0 INTO excused
                        FROM generate_series(first_leg, last_leg) AS l (leg)
                        WHERE leg_account[l.leg] = account;
                    END IF;
                    IF NOT excused THEN
                        outcome := CASE state[account] WHEN 2 THEN 30 ELSE 31 END;
                        culprit := leg;
                    END IF;
                END IF;
                total := total + leg_amount[leg];
                mixed := mixed OR currency[account] <> currency[leg_account[first_leg]];
            END LOOP;
            IF condition_count > 0 THEN
                WHILE condition_item[cursor_condition] < i LOOP
                    cursor_condition := cursor_condition + 1;
                END LOOP;
                condition := cursor_condition;
                WHILE condition_item[condition] = i LOOP
                    account := condition_account[condition];
                    IF state[account] IS NULL THEN
                        outcome := 22;
                        culprit := -condition;
                        EXIT check;
                    END IF;
                    condition := condition + 1;
                END LOOP;
            END IF;
            IF outcome > 0 THEN
                EXIT check;
            END IF;

            -- 40, 41: the legs balance in each currency.
            IF operation < 2 THEN
                IF mixed THEN
                    SELECT bool_and(c.total = 0) INTO balanced FROM (
                        SELECT sum(leg_amount[l.leg]) AS total FROM generate_series(first_leg, last_leg) AS l (leg)
                        GROUP BY currency[leg_account[l.leg]]
                    ) AS c;
                    IF currencies[i] IS NOT NULL OR operation = 1 OR NOT balanced THEN
                        outcome := 40;
                        EXIT check;
                    END IF;
                ELSIF currencies[i] <> currency[leg_account[first_leg]] THEN
                    outcome := 40;
                    culprit := first_leg;
                    EXIT check;
                ELSIF total <> 0 THEN
                    outcome := 41;
                    figure := total;
                    EXIT check;
                END IF;
            END IF;

            -- 34, 33: the item takes effect within the bounds, and in a period that is not closed.
            IF effective_times IS NOT NULL AND effective_times[i] IS NOT NULL THEN
                IF effective_times[i] < earliest OR effective_times[i] > latest THEN
                    outcome := 34;
                    EXIT check;
                END IF;
                FOR leg IN first_leg..last_leg LOOP
                    IF effective_times[i] < closed[leg_account[leg]] THEN
                        outcome := 33;
                        culprit := leg;
                        EXIT check;
                    END IF;
                END LOOP;
            END IF;

            -- 23, 56: the payable is there, open and in time.
            IF payable_ids IS NOT NULL AND item_payable[i] > 0 THEN
                payable := item_payable[i];
                IF payable_state[payable] IS NULL THEN
                    outcome := 23;
                    EXIT check;
                END IF;
                IF payable_state[payable] = 0 AND payable_expires[payable] <= now_at THEN
                    payable_state[payable] := 4;
                END IF;
                IF payable_state[payable] > 0 THEN
                    outcome := 56;
                    figure := payable_state[payable];
                    EXIT check;
                END IF;
            END IF;

            -- 32, 35, 50..54: the target is as the caller expects; the hold is open and covers the amount; the transfer
            -- has that much left to reverse.
            IF operation >= 2 THEN
                amount := amounts[i];
                IF (operation = 6 AND item_revision[i] <> reversed[target])
                    OR (operation < 6 AND item_revision[i] <> hold_revision[target]) THEN
                    outcome := 32;
                    EXIT check;
                END IF;
                IF operation = 6 THEN
                    done := reversed[target];
                    unit := coalesce(CASE WHEN done > 0 THEN reversed_leg[target] + 1 END, item_unit[i], 1);
                    IF unit > last_leg - first_leg + 1 THEN
                        RAISE EXCEPTION 'a reversal lacks the leg that its parts are counted in'
                        USING ERRCODE = 'check_violation';
                    END IF;
                    whole := abs(leg_amount[first_leg + unit - 1]);
                    rest := whole - done;
                    IF effective_times IS NOT NULL AND effective_times[i] < original_effective[target] THEN
                        outcome := 35;
                        EXIT check;
                    END IF;
                    IF rest = 0 THEN
                        outcome := 53;
                        EXIT check;
                    END IF;
                    IF amount NOT BETWEEN 1 AND rest THEN
                        outcome := 54;
                        figure := rest;
                        EXIT check;
                    END IF;
                ELSE
                    unit := 1;
                    whole := hold_amount[target];
                    done := hold_captured[target];
                    rest := whole - done;
                    IF operation <> 4 AND hold_legs[target] <> last_leg - first_leg + 1 THEN
                        RAISE EXCEPTION 'an item lacks legs of its hold' USING ERRCODE = 'check_violation';
                    END IF;
                    IF hold_state[target] > 0 THEN
                        outcome := 50;
                        figure := hold_state[target];
                        EXIT check;
                    END IF;
                    IF operation IN (2, 4) AND hold_expires[target] <= now_at THEN
                        outcome := 51;
                        EXIT check;
                    END IF;
                    IF operation = 5 AND (hold_expires[target] > now_at) IS NOT FALSE THEN
                        outcome := 55; -- the hold was extended after the expiry job had seen it
                        EXIT check;
                    END IF;
                    IF operation = 2 AND amount NOT BETWEEN 1 AND rest THEN
                        outcome := 52;
                        figure := rest;
                        EXIT check;
                    END IF;
                END IF;
                amount := coalesce(amount, rest);
                IF operation <> 4 AND amount < whole THEN
                    -- Parts are differences of running sums, so that they add up to the whole exactly. A void or an
                    -- expiry posts nothing: its parts are what no longer comes in.
                    parts := ledger_part(leg_amount[first_leg:last_leg], done + amount, unit);
                    earlier := ledger_part(leg_amount[first_leg:last_leg], done, unit);
                    FOR leg IN first_leg..last_leg LOOP
                        leg_posted[leg] := parts[leg - first_leg + 1] - earlier[leg - first_leg + 1];
                    END LOOP;
                END IF;
                item_amount[i] := amount;
            END IF;

            -- 60, 63: the accounts have the versions and revisions that the caller expects.
            condition := cursor_condition;
            WHILE condition_item[condition] = i LOOP
                account := condition_account[condition];
                IF condition_version[condition] <> version[account] THEN
                    outcome := 60;
                    culprit := -condition;
                    figure := version[account];
                    EXIT check;
                ELSIF condition_revision[condition] <> version[account] + changes[account] AND outcome = 0 THEN
                    outcome := 63;
                    culprit := -condition;
                    figure := version[account] + changes[account];
                END IF;
                condition := condition + 1;
            END LOOP;
            IF outcome > 0 THEN
                EXIT check;
            END IF;

            -- The item is applied to the copy. From here on a refusal undoes it.
            applied := TRUE;
            IF operation = 6 AND original_effective[target] > now_at AND effective_times[i] IS NULL THEN
                effective_times := coalesce(effective_times, array_fill(NULL::timestamptz, ARRAY[item_count]));
                effective_times[i] := original_effective[target]; -- never before the original
            END IF;
            IF operation IN (0, 2, 6) THEN
                FOR leg IN first_leg..last_leg LOOP
                    net := leg_posted[leg];
                    CONTINUE WHEN net = 0;
                    account := leg_account[leg];
                    IF touched[account] <> i THEN
                        touched[account] := i;
                        before[account] := balance[account];
                    END IF;
                    net := balance[account] + net;
                    balance[account] := net;
                    version[account] := version[account] + 1;
                    leg_version[leg] := version[account];
                    leg_balance[leg] := net;
                    leg_no[leg] := item_no(0, i) + leg - first_leg;
                    IF net > top OR net < -top THEN
                        outcome := 80;
                        culprit := leg;
                        EXIT;
                    END IF;
                END LOOP;
            END IF;
            IF operation = 1 THEN
                amount := -leg_amount[first_leg];
                item_amount[i] := amount;
                account := leg_account[first_leg];
                held[account] := held[account] + amount;
                changes[account] := changes[account] + 1;
                IF held[account] > top THEN
                    outcome := 80;
                    culprit := first_leg;
                END IF;
                FOR leg IN first_leg + 1..last_leg LOOP
                    IF leg_amount[leg] <= 0 THEN -- a capture checks no limits, so it must take from nobody but the source
                        RAISE EXCEPTION 'a hold takes from its first leg alone' USING ERRCODE = 'check_violation';
                    END IF;
                    account := leg_account[leg];
                    IF touched[account] <> i THEN
                        touched[account] := i;
                        before[account] := incoming[account];
                    END IF;
                    incoming[account] := incoming[account] + leg_amount[leg];
                    changes[account] := changes[account] + 1;
                    IF incoming[account] > top AND outcome = 0 THEN
                        outcome := 80;
                        culprit := leg;
                    END IF;
                END LOOP;
            ELSIF operation IN (2, 3, 5) THEN
                account := leg_account[first_leg];
                held[account] := held[account] - amount;
                changes[account] := changes[account] + 1;
                FOR leg IN first_leg + 1..last_leg LOOP
                    account := leg_account[leg];
                    incoming[account] := incoming[account] - leg_posted[leg];
                    changes[account] := changes[account] + 1;
                END LOOP;
            ELSIF operation = 4 THEN
                account := leg_account[first_leg];
                changes[account] := changes[account] + 1;
            END IF;
            IF outcome > 0 THEN
                EXIT check;
            END IF;

            -- 61, 62, 64, 65: what the accounts have is within the caller's conditions; the lowest code of all counts.
            condition := cursor_condition;
            WHILE condition_item[condition] = i LOOP
                account := condition_account[condition];
                code := CASE
                    WHEN balance[account] < condition_min[condition] THEN 61
                    WHEN balance[account] > condition_max[condition] THEN 62
                    WHEN balance[account] - held[account] < condition_available_min[condition] THEN 64
                    WHEN balance[account] - held[account] > condition_available_max[condition] THEN 65
                    ELSE 0
                END;
                IF code > 0 AND (outcome = 0 OR code < outcome) THEN
                    outcome := code;
                    culprit := -condition;
                    figure := CASE WHEN code < 64 THEN balance[account] ELSE balance[account] - held[account] END;
                END IF;
                condition := condition + 1;
            END LOOP;
            IF outcome > 0 THEN
                EXIT check;
            END IF;

            -- 70..76: each account is within its limits after the whole item; the lowest code of all legs counts.
            IF operation IN (0, 1, 6) THEN
                first_limit := CASE WHEN item_limits IS NOT NULL AND operation < 2 THEN i * 4 - 3 END;
                FOR leg IN first_leg..last_leg LOOP
                    account := leg_account[leg];
                    code := 0;
                    spare := NULL;
                    IF operation = 1 THEN
                        net := leg_amount[leg];
                    ELSE
                        CONTINUE WHEN touched[account] <> i; -- a leg that scaling left at zero
                        net := balance[account] - before[account];
                    END IF;
                    IF net < 0 THEN
                        IF operation < 2 AND -net > maxima[account] THEN
                            code := 70;
                            spare := maxima[account];
                        ELSIF leg = first_leg AND -net > item_limits[first_limit] THEN
                            code := 70;
                            spare := item_limits[first_limit];
                        ELSIF balance[account] - floors[account] < held[account] THEN -- in this order it cannot overflow
                            code := 71;
                            spare := CASE operation
                                WHEN 1 THEN greatest(balance[account] - floors[account], -top) - held[account] - net
                                ELSE greatest(before[account] - floors[account], -top) - held[account]
                            END;
                        ELSIF operation < 2 AND windowed[account] THEN
                            IF -net > hour_max[account] - hour_sum[account] THEN
                                code := 73;
                                spare := greatest(hour_max[account] - hour_sum[account], 0);
                            ELSIF hour_uses[account] + 1 > hour_uses_max[account] THEN
                                code := 74;
                            ELSIF -net > day_max[account] - day_sum[account] THEN
                                code := 75;
                                spare := greatest(day_max[account] - day_sum[account], 0);
                            ELSIF day_uses[account] + 1 > day_uses_max[account] THEN
                                code := 76;
                            ELSIF leg = first_leg AND first_limit IS NOT NULL THEN
                                IF -net > item_limits[first_limit + 1] - hour_sum[account] THEN
                                    code := 73;
                                    spare := greatest(item_limits[first_limit + 1] - hour_sum[account], 0);
                                ELSIF hour_uses[account] + 1 > item_limits[first_limit + 2] THEN
                                    code := 74;
                                ELSIF -net > item_limits[first_limit + 3] - day_sum[account] THEN
                                    code := 75;
                                    spare := greatest(item_limits[first_limit + 3] - day_sum[account], 0);
                                END IF;
                            END IF;
                        END IF;
                    ELSIF net > 0 AND balance[account] + incoming[account] > ceilings[account] THEN
                        -- Open holds will bring `incoming`. A hold keeps in `before` what came in before it.
                        code := 72;
                        spare := before[account] + CASE operation WHEN 1 THEN balance[account] ELSE incoming[account] END;
                        spare := greatest(ceilings[account], spare) - spare; -- in this order it cannot overflow
                    END IF;
                    IF code > 0 AND (outcome = 0 OR code < outcome) THEN
                        outcome := code;
                        culprit := leg;
                        figure := spare;
                    END IF;
                END LOOP;
            END IF;
        END check;
        -- Holds whose time is over count as released: a refusal that they alone have caused is not kept.
        IF outcome IN (64, 71, 72) THEN
            account := CASE WHEN culprit < 0 THEN condition_account[-culprit] ELSE leg_account[culprit] END;
            SELECT l.held, l.incoming INTO lapsed_held, lapsed_incoming
            FROM ledger_lapsed(account_ids[account], now_at, targets, hold_state, hold_captured, hold_expires) AS l;
            FOR j IN 1..CASE WHEN expiry_times IS NULL THEN 0 ELSE i - 1 END LOOP
                CONTINUE WHEN operations[j] <> 1 OR outcomes[j] <> 0 OR (expiry_times[j] <= now_at) IS NOT TRUE;
                FOR leg IN leg_first[j]..leg_last[j] LOOP
                    CONTINUE WHEN leg_account[leg] <> account;
                    lapsed_held := lapsed_held - least(leg_amount[leg], 0);
                    lapsed_incoming := lapsed_incoming + greatest(leg_amount[leg], 0);
                END LOOP;
            END LOOP;
            IF (outcome = 64 AND balance[account] - held[account] + lapsed_held >= condition_available_min[-culprit])
                OR (outcome = 71 AND balance[account] - floors[account] >= held[account] - lapsed_held)
                OR (outcome = 72 AND balance[account] + incoming[account] - lapsed_incoming <= ceilings[account]) THEN
                outcome := outcome + 100;
            END IF;
        END IF;

        outcomes[i] := outcome;
        culprits[i] := culprit;
        figures[i] := figure;
        IF outcome = 0 THEN
            events := events + 1;
            IF payable_ids IS NOT NULL AND item_payable[i] > 0 AND NOT payable_reusable[item_payable[i]] THEN
                payable_state[item_payable[i]] := 1;
            END IF;
            IF has_windows AND operation < 2 THEN
                FOR leg IN first_leg..last_leg LOOP
                    account := leg_account[leg];
                    net := CASE
                        WHEN operation = 0 THEN before[account] - balance[account] WHEN leg = first_leg THEN amount
                    END;
                    IF windowed[account] AND net > 0 AND (operation = 1 OR touched[account] = i) THEN
                        touched[account] := -i; -- once an account, however many legs it has
                        net := least(net, top); -- sums stay at `top` once they are there: no limit is higher
                        hour_sum[account] := least(hour_sum[account] + net, top);
                        hour_uses[account] := hour_uses[account] + 1;
                        day_sum[account] := least(day_sum[account] + net, top);
                        day_uses[account] := day_uses[account] + 1;
                        window_sum[account] := least(window_sum[account] + net, top);
                        window_uses[account] := window_uses[account] + 1;
                    END IF;
                END LOOP;
            END IF;
            IF operation = 1 AND expiry_times IS NOT NULL THEN
                item_expires[i] := expiry_times[i];
            ELSIF operation = 6 THEN
                reversed[target] := done + amount;
                reversed_leg[target] := unit - 1;
            ELSIF operation >= 2 THEN
                IF operation = 2 THEN
                    hold_captured[target] := done + amount;
                    IF done + amount = whole THEN
                        hold_state[target] := 1;
                    END IF;
                ELSIF operation = 4 THEN
                    hold_expires[target] := expiry_times[i];
                ELSE
                    hold_state[target] := CASE operation WHEN 3 THEN 2 ELSE 3 END;
                END IF;
                hold_revision[target] := hold_revision[target] + 1;
                item_captured[i] := hold_captured[target];
                item_expires[i] := hold_expires[target];
            END IF;
            CONTINUE;
        END IF;

        -- A refusal puts back the values that this item, or its whole group, has changed.
        IF in_group > 0 THEN
            group_failed := TRUE;
            balance := old_balance; held := old_held; version := old_version; incoming := old_incoming;
            changes := old_changes; hold_revision := old_revision;
            hold_captured := old_captured; hold_state := old_state; hold_expires := old_expires;
            reversed := old_reversed; payable_state := old_payable; hour_sum := old_hour_sum;
            hour_uses := old_hour_uses;
            day_sum := old_day_sum; day_uses := old_day_uses; window_sum := old_window_sum;
            window_uses := old_window_uses;
            FOR j IN group_first..i LOOP
                IF outcomes[j] = 0 THEN
                    outcomes[j] := 90;
                    events := events - 1;
                ELSIF outcomes[j] = 1 AND outcomes[twins[j]] = 90 THEN
                    outcomes[j] := 90; -- its twin is undone now
                END IF;
                CONTINUE WHEN outcomes[j] BETWEEN 1 AND 3;
                FOR leg IN leg_first[j]..leg_last[j] LOOP
                    leg_version[leg] := 0;
                END LOOP;
            END LOOP;
        ELSIF applied THEN
            FOR leg IN first_leg..last_leg LOOP
                account := leg_account[leg];
                IF leg_version[leg] > 0 THEN
                    balance[account] := before[account];
                    version[account] := version[account] - 1;
                    leg_version[leg] := 0;
                END IF;
                IF operation IN (1, 2, 3, 5) THEN
                    changes[account] := changes[account] - 1;
                    IF leg > first_leg THEN
                        incoming[account] := incoming[account] + CASE operation WHEN 1 THEN -1 ELSE 1 END * leg_posted[leg];
                    ELSE
                        held[account] := held[account] + CASE operation WHEN 1 THEN -amount ELSE amount END;
                    END IF;
                ELSIF operation = 4 AND leg = first_leg THEN
                    changes[account] := changes[account] - 1;
                END IF;
            END LOOP;
        END IF;
    END LOOP;

    item_effective := effective_times;
    IF dry_run THEN
        recorded := greatest(now_at, last_recorded);
        RETURN;
    END IF;

    -- After this point nothing is refused.
    recorded := greatest(clock_timestamp(), last_recorded);
    IF events > 0 THEN
        PERFORM pg_current_xact_id(); -- the sequencer relies on this: a number is drawn after the transaction has its id
        batch := nextval('batch_seq');
        INSERT INTO batches (seq, recorded_at, events) VALUES (batch, recorded, events);
        IF has_holds THEN
            UPDATE accounts AS a
            SET
                balance = n.balance, held = n.held, incoming = n.incoming, version = n.version, changes = n.changes,
                recorded_at = recorded
            FROM unnest(account_ids, balance, held, incoming, version, changes)
                AS n (id, balance, held, incoming, version, changes)
            WHERE a.id = n.id AND (a.version <> n.version OR a.changes <> n.changes);
        ELSE
            UPDATE accounts AS a
            SET balance = n.balance, version = n.version, recorded_at = recorded
            FROM unnest(account_ids, balance, version) AS n (id, balance, version)
            WHERE a.id = n.id AND a.version <> n.version;
        END IF;
        INSERT INTO entries (account_id, version, no, amount, balance)
        SELECT account_ids[l.account], l.version, item_no(batch, 0) + l.no, l.amount, l.balance
        FROM unnest(leg_account, leg_version, leg_no, leg_posted, leg_balance)
            AS l (account, version, no, amount, balance)
        WHERE l.version > 0;
        INSERT INTO transfers (no, id, target, effective_at, principal_id, kind, reference, metadata)
        SELECT
            item_no(batch, t.item), t.id, targets[t.target], t.effective, t.principal, t.kind, t.reference,
            t.metadata::jsonb
        FROM unnest(ids, outcomes, operations, item_target, effective_times, principals, kinds, reference_texts, metadata_texts)
            WITH ORDINALITY
            AS t (id, outcome, operation, target, effective, principal, kind, reference, metadata, item)
        WHERE t.outcome = 0 AND t.operation IN (0, 2, 6);
        IF effective_times IS NOT NULL THEN
            -- `leg_no` is the number of a leg in batch 0, so only the item's place stands above its last 12 bits.
            INSERT INTO backdated_entries (account_id, effective_at, recorded_at, no, amount)
            SELECT account_ids[l.account], effective_times[l.no >> 12], recorded, item_no(batch, 0) + l.no, l.amount
            FROM unnest(leg_account, leg_version, leg_no, leg_posted) AS l (account, version, no, amount)
            WHERE l.version > 0 AND effective_times[l.no >> 12] IS NOT NULL;
        END IF;
        IF has_windows THEN
            WITH used AS (
                INSERT INTO window_usage AS w (account_id, span, bucket, amount, uses)
                SELECT u.account_id, b.span, date_trunc(b.unit, now_at, 'UTC'), u.amount, u.uses
                FROM unnest(account_ids, window_sum, window_uses) AS u (account_id, amount, uses)
                CROSS JOIN (VALUES ('m'::"char", 'minute'), ('d'::"char", 'day')) AS b (span, unit)
                WHERE u.uses > 0
                ON CONFLICT ON CONSTRAINT window_usage_pkey
                DO UPDATE SET amount = least(w.amount + excluded.amount, top), uses = w.uses + excluded.uses
                RETURNING w.account_id, w.xmax = 0 AS begun
            )

            SELECT array_agg(u.account_id) INTO begun FROM used AS u WHERE u.begun;
            -- Buckets behind every window are deleted when a new one begins, so that an account keeps about sixty
            -- rows.
            IF begun IS NOT NULL THEN
                DELETE FROM window_usage AS w
                USING unnest(begun) AS u (account_id)
                WHERE w.account_id = u.account_id AND w.span = 'm'
                    AND w.bucket <= date_trunc('minute', now_at - interval '1 hour', 'UTC');
                DELETE FROM window_usage AS w
                USING unnest(begun) AS u (account_id)
                WHERE w.account_id = u.account_id AND w.span = 'd' AND w.bucket < date_trunc('day', now_at, 'UTC');
            END IF;
        END IF;
        IF has_holds THEN
            PERFORM ledger_write_holds(
                batch, ids, operations, outcomes, principals, kinds, leg_first, leg_last, account_ids, leg_account,
                leg_amount, targets, item_target, reference_texts, metadata_texts, expiry_times, item_amount,
                item_captured, item_expires, hold_captured, hold_state, hold_expires, hold_revision, reversed,
                reversed_leg
            );
        END IF;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE k.outcome > 0) INTO keyed, refused
    FROM unnest(outcomes, operations, unfrozen) AS k (outcome, operation, unfrozen)
    WHERE (k.outcome = 0 OR (k.outcome BETWEEN 50 AND 89 AND k.unfrozen IS NOT TRUE)) AND k.operation <> 5;
    IF keyed > 0 THEN
        INSERT INTO keys (id, no, fingerprint, fields)
        SELECT
            k.id, CASE WHEN k.outcome = 0 THEN item_no(batch, k.item) END, k.fingerprint, k.fields
        FROM unnest(ids, outcomes, operations, fingerprints, fields, unfrozen) WITH ORDINALITY
            AS k (id, outcome, operation, fingerprint, fields, unfrozen, item)
        WHERE (k.outcome = 0 OR (k.outcome BETWEEN 50 AND 89 AND k.unfrozen IS NOT TRUE)) AND k.operation <> 5
        ORDER BY k.id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS stored = ROW_COUNT;
        IF stored <> keyed THEN
            RAISE EXCEPTION 'a key of this batch was taken by another batch' USING ERRCODE = 'TS001';
        END IF;
        IF refused > 0 THEN
            INSERT INTO refusals (id, outcome, account_id, figure, refused_at)
            SELECT
                r.id, r.outcome,
                account_ids[CASE
                    WHEN r.culprit < 0 THEN condition_account[-r.culprit] WHEN r.culprit > 0 THEN leg_account[r.culprit]
                END],
                r.figure, recorded
            FROM unnest(ids, outcomes, operations, culprits, figures, unfrozen)
                AS r (id, outcome, operation, culprit, figure, unfrozen)
            WHERE r.outcome BETWEEN 50 AND 89 AND r.operation <> 5 AND r.unfrozen IS NOT TRUE;
        END IF;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION ledger_post FROM public;
GRANT EXECUTE ON FUNCTION ledger_post TO tallystick_serving;
