-- The ledger. Append-only facts: keys, refusals, batches, transfers, entries, hold_events, account_events, feed.
-- Mutable state, each row covered by the lock of one account: accounts, holds, reversed_amounts, window_usage.
--
-- A posting number `no` names an item of a batch and orders everything: batch << 22 | item << 12 | leg.
-- An item's legs follow its own number, so one number finds the item, its batch and its entries.

DO $$
BEGIN
    CREATE ROLE tallystick_serving NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- roles belong to the cluster: another database of it has made this one
END
$$;

DO $$
BEGIN
    EXECUTE format('GRANT tallystick_serving TO %I', current_user);
END
$$;

-- One row: the identity of this history. A restore from a backup starts a new epoch, so that no shortcut taken in Redis
-- for the lost part of the history is believed.
CREATE TABLE epochs (
    epoch text PRIMARY KEY DEFAULT substr(replace(gen_random_uuid()::text, '-', ''), 1, 12),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL
);
INSERT INTO epochs (reason) VALUES ('created');

CREATE TABLE accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What a posting changes. No index may ever name one of these columns: that would end HOT updates.
    balance bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Limits in the minor unit; null means none. `floor` bounds balance - held, `ceiling` the balance.
    floor bigint DEFAULT 0,
    ceiling bigint,
    transfer_max bigint,
    state smallint NOT NULL DEFAULT 0, -- 0 open, 1 frozen, 2 closed
    has_windows boolean NOT NULL DEFAULT FALSE,
    currency text NOT NULL,
    code text COLLATE "C" NOT NULL UNIQUE,
    -- One check, since each is parsed by each statement and run for each row that it writes. What never changes is
    -- checked by ledger_open_accounts, the only one that writes it.
    CHECK (
        balance BETWEEN -4611686018427387903 AND 4611686018427387903 AND held BETWEEN 0 AND 4611686018427387903
        AND state BETWEEN 0 AND 2
        AND coalesce(floor >= -4611686018427387903 AND floor <= 4611686018427387903, TRUE)
        AND coalesce(ceiling >= -4611686018427387903 AND ceiling <= 4611686018427387903, TRUE)
        AND coalesce(floor <= ceiling, TRUE) AND coalesce(transfer_max > 0, TRUE)
    )
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);

-- What a posting never reads, kept out of the row that it rewrites.
CREATE TABLE account_profiles (
    account_id bigint PRIMARY KEY,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_by integer NOT NULL,
    created_at timestamptz NOT NULL
);

-- Limits per window on what leaves an account: the UTC day, and the rolling hour in minute buckets.
CREATE TABLE account_windows (
    account_id bigint PRIMARY KEY,
    hour_amount_max bigint CHECK (hour_amount_max >= 0),
    hour_count_max bigint CHECK (hour_count_max >= 0),
    day_amount_max bigint CHECK (day_amount_max >= 0),
    day_count_max bigint CHECK (day_count_max >= 0)
);
CREATE TABLE window_usage (
    account_id bigint NOT NULL,
    span "char" NOT NULL CHECK (span IN ('m', 'd')),
    bucket timestamptz NOT NULL,
    amount bigint NOT NULL,
    uses bigint NOT NULL,
    PRIMARY KEY (account_id, span, bucket)
) WITH (fillfactor = 70);

-- Drawn once a batch, after its last lock: whatever saw a batch's effects has a higher number.
CREATE SEQUENCE batch_seq AS bigint MINVALUE 1 CACHE 1;

CREATE TABLE batches (
    seq bigint PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    events integer NOT NULL CHECK (events > 0)
);
CREATE INDEX batches_recorded_at ON batches (recorded_at, seq);

-- The idempotency keys of everything that was done or finally refused. `id` is the hash of owner and key, and the
-- public id of what it made; `fingerprint` is the hash of the body, `fields` eight one-byte hashes that name what
-- differs.
CREATE TABLE keys (
    id uuid PRIMARY KEY,
    no bigint, -- null: it was refused, see refusals
    fingerprint bigint NOT NULL,
    fields bigint NOT NULL
);
CREATE TABLE refusals (
    id uuid PRIMARY KEY,
    outcome smallint NOT NULL,
    account_id bigint,
    figure bigint,
    refused_at timestamptz NOT NULL
);

CREATE TABLE transfers (
    no bigint PRIMARY KEY,
    id uuid NOT NULL,
    target bigint, -- the hold that it captures, or the transfer that it reverses
    effective_at timestamptz, -- null: when it was recorded
    principal_id integer NOT NULL,
    kind text NOT NULL,
    reference text,
    metadata jsonb
);
CREATE INDEX transfers_kind ON transfers (kind, (no >> 22));
CREATE INDEX transfers_reference ON transfers (reference, no) WHERE reference IS NOT NULL;
CREATE INDEX transfers_metadata ON transfers USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;
CREATE INDEX transfers_target ON transfers (target) WHERE target IS NOT NULL;

CREATE TABLE entries (
    account_id bigint NOT NULL,
    version bigint NOT NULL,
    no bigint NOT NULL,
    amount bigint NOT NULL,
    balance bigint NOT NULL,
    PRIMARY KEY (account_id, version)
);
-- By batch, not by number: equal keys share one posting list, which costs a few bytes an entry instead of twenty.
CREATE INDEX entries_batch ON entries ((no >> 22));

-- The entries whose effective time is not the time they were recorded: what corrects a balance by effective time.
CREATE TABLE backdated_entries (
    account_id bigint NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    no bigint NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (account_id, effective_at, no)
);

-- How much of a transfer has been reversed, in the unit of its first leg.
CREATE TABLE reversed_amounts (
    no bigint PRIMARY KEY,
    amount bigint NOT NULL CHECK (amount > 0)
);

CREATE TABLE holds (
    no bigint PRIMARY KEY,
    id uuid NOT NULL,
    source_id bigint NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    captured bigint NOT NULL DEFAULT 0,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3), -- 0 open, 1 captured, 2 voided, 3 expired
    expires_at timestamptz,
    principal_id integer NOT NULL,
    kind text NOT NULL,
    reference text,
    metadata jsonb,
    leg_accounts bigint[] NOT NULL,
    leg_amounts bigint[] NOT NULL,
    CHECK (captured BETWEEN 0 AND amount)
) WITH (fillfactor = 80);
CREATE INDEX holds_due ON holds (expires_at, no) WHERE state = 0 AND expires_at IS NOT NULL;
CREATE INDEX holds_source ON holds (source_id, no);

CREATE TABLE hold_events (
    no bigint PRIMARY KEY,
    id uuid NOT NULL, -- of the operation
    hold bigint NOT NULL,
    operation smallint NOT NULL, -- 1 created, 2 captured, 3 voided, 4 extended, 5 expired
    amount bigint NOT NULL,
    captured bigint NOT NULL, -- after it
    expires_at timestamptz -- after it
);
CREATE INDEX hold_events_hold ON hold_events (hold, no);

CREATE TABLE account_events (
    no bigint PRIMARY KEY,
    account_id bigint NOT NULL,
    kind text NOT NULL, -- account.created, account.updated
    data jsonb NOT NULL
);

CREATE INDEX account_events_account ON account_events (account_id, no);

-- The feed numbers what has committed: `position` is that of the batch's first event, dense over all events.
CREATE TABLE feed (
    position bigint PRIMARY KEY,
    batch bigint NOT NULL,
    events integer NOT NULL,
    digest bytea NOT NULL, -- of the previous row's digest and this batch's content
    sealed_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX feed_batch ON feed (batch);
CREATE TABLE feed_head (
    singleton boolean PRIMARY KEY DEFAULT TRUE CHECK (singleton),
    position bigint NOT NULL, -- of the last event
    batch bigint NOT NULL, -- every lower batch is in the feed, or in feed_gaps, or will never be
    digest bytea NOT NULL
);
INSERT INTO feed_head (position, batch, digest) VALUES (0, 0, '\x');
-- Batch numbers that were drawn and are not visible: still in flight, or rolled back.
CREATE TABLE feed_gaps (
    batch bigint PRIMARY KEY,
    ceiling xid8 -- once no transaction below it runs, the number was rolled back; null until the next round
);

GRANT SELECT ON ALL TABLES IN SCHEMA public TO tallystick_serving;
