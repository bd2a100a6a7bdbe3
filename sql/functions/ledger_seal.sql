-- The text of one batch that the hash chain covers: every row that it appended, in the order of their numbers. Columns
-- are named, so that a later migration may add others; the settings that text depends on are fixed here. Rows of holds
-- and accounts are covered by the columns that never change: a hold's terms, an account's code and currency.
CREATE OR REPLACE FUNCTION ledger_batch_content(batch bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
SET plan_cache_mode = force_generic_plan
AS $$
    SELECT concat(
        (SELECT ROW(b.seq, b.recorded_at, b.events)::text FROM batches AS b WHERE b.seq = batch), '|',
        (
            SELECT string_agg(ROW(e.account_id, e.version, e.no, e.amount, e.balance)::text, '' ORDER BY e.no)
            FROM entries AS e
            WHERE batch_of(e.no) = batch
        ), '|',
        (
            SELECT string_agg(
                ROW(
                    t.no, t.id, t.target, t.effective_at, t.principal_id, t.kind, t.reference, t.metadata
                )::text, '' ORDER BY t.no
            )
            FROM transfers AS t
            WHERE t.no BETWEEN item_no(batch, 0) AND last_no(batch)
        ), '|',
        (
            SELECT string_agg(
                ROW(
                    h.no, h.id, h.hold, h.operation, h.amount, h.captured, h.expires_at, o.id, o.source_id, o.amount,
                    o.principal_id, o.kind, o.reference, o.metadata, o.leg_accounts, o.leg_amounts
                )::text, '' ORDER BY h.no
            )
            FROM hold_events AS h INNER JOIN holds AS o ON h.hold = o.no
            WHERE h.no BETWEEN item_no(batch, 0) AND last_no(batch)
        ), '|',
        (
            SELECT string_agg(ROW(a.no, a.account_id, a.kind, a.data, c.code, c.currency)::text, '' ORDER BY a.no)
            FROM account_events AS a LEFT JOIN accounts AS c ON a.account_id = c.id
            WHERE a.no BETWEEN item_no(batch, 0) AND last_no(batch)
        )
    )
$$;

-- Number and seal up to `most` batches that were committed since the last round; return how many. One sequencer works
-- at a time; another that comes meanwhile returns 0.
--
-- A batch number is drawn after its batch's last lock, so a batch that depends on it has a higher number and is visible
-- no earlier: ascending numbers within a round, and rounds one after the other, respect every dependency. A missing
-- number is in flight or rolled back. The sequencer remembers it as a gap and does not wait, so that a foreign long
-- transaction stalls nothing.
--
-- `recorded_spread` is the most by which a batch of the feed is earlier than a batch with a lower number.
CREATE OR REPLACE FUNCTION ledger_seal(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    head feed_head;
    oldest xid8;
    visible bigint [];
    counts integer [];
    times timestamptz [];
    highest bigint;
    digest bytea;
    place bigint;
    earliest timestamptz;
    positions bigint [] := '{}';
    digests bytea [] := '{}';
BEGIN
    SELECT h.* INTO head FROM feed_head AS h FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- A transaction that drew a missing number had its id before the gap was noticed, so that id is below ours now.
    UPDATE feed_gaps AS g SET ceiling = pg_current_xact_id() WHERE g.ceiling IS NULL;
    oldest := pg_snapshot_xmin(pg_current_snapshot()); -- read before the gaps: a transaction that has ended by now is visible below
    SELECT
        array_agg(b.seq ORDER BY b.seq), array_agg(b.events ORDER BY b.seq), array_agg(b.recorded_at ORDER BY b.seq),
        max(b.seq)
    INTO visible, counts, times, highest
    FROM (
        SELECT b.seq, b.events, b.recorded_at FROM feed_gaps AS g INNER JOIN batches AS b ON g.batch = b.seq
        UNION ALL
        (SELECT b.seq, b.events, b.recorded_at FROM batches AS b WHERE b.seq > head.batch ORDER BY b.seq LIMIT most)
    ) AS b;
    DELETE FROM feed_gaps AS g WHERE g.batch = ANY (visible) OR g.ceiling <= oldest;
    IF visible IS NULL THEN
        RETURN 0;
    END IF;
    highest := greatest(highest, head.batch);
    INSERT INTO feed_gaps (batch)
    SELECT n.batch FROM generate_series(head.batch + 1, highest) AS n (batch) WHERE n.batch <> ALL (visible);

    place := head.position;
    digest := head.digest;
    FOR i IN 1..cardinality(visible) LOOP
        digest := sha256(digest || convert_to(ledger_batch_content(visible[i]), 'UTF8'));
        positions[i] := place + 1;
        digests[i] := digest;
        place := place + counts[i];
        earliest := times[i];
        IF visible[i] < head.batch THEN -- a gap that has closed: batches with higher numbers are in the feed before it
            SELECT least(min(b.recorded_at), earliest) INTO earliest
            FROM batches AS b WHERE b.seq > visible[i] AND b.seq <= head.batch;
        END IF;
        head.recorded_max := greatest(head.recorded_max, times[i]);
        head.recorded_spread := greatest(
            head.recorded_spread,
            make_interval(secs => extract(EPOCH FROM head.recorded_max - earliest)::double precision)
        );
    END LOOP;
    INSERT INTO feed (position, batch, events, digest, sealed_at)
    SELECT f.position, f.batch, f.events, f.digest, clock_timestamp()
    FROM unnest(positions, visible, counts, digests) AS f (position, batch, events, digest);
    UPDATE feed_head AS h
    SET
        position = place, batch = highest, digest = digests[cardinality(visible)], recorded_max = head.recorded_max,
        recorded_spread = head.recorded_spread;
    RETURN cardinality(visible);
END
$$;

REVOKE EXECUTE ON FUNCTION ledger_batch_content, ledger_seal FROM public;
GRANT EXECUTE ON FUNCTION ledger_batch_content, ledger_seal TO tallystick_serving;
