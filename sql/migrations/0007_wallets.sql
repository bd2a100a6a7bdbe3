-- The wallet platform: users with a wallet each, what can be paid, what was done by whom, what an administrator sets.
-- Money itself is in the ledger: a wallet is the account `wallet:<wallet_id>`.

CREATE TABLE users (
    id uuid PRIMARY KEY,
    principal_id integer NOT NULL UNIQUE REFERENCES principals,
    wallet_id uuid NOT NULL UNIQUE,
    phone text COLLATE "C" NOT NULL UNIQUE CHECK (length(phone) BETWEEN 1 AND 32),
    username text CHECK (length(username) BETWEEN 3 AND 64),
    password_hash text,
    name text CHECK (length(name) <= 128),
    is_merchant boolean NOT NULL DEFAULT FALSE,
    is_agent boolean NOT NULL DEFAULT FALSE,
    merchant_status text NOT NULL DEFAULT 'none'
    CHECK (merchant_status IN ('none', 'applied', 'approved', 'rejected', 'suspended')),
    merchant_fee_bps integer CHECK (merchant_fee_bps BETWEEN 0 AND 10000),
    merchant_since timestamptz,
    kyc_level smallint NOT NULL DEFAULT 0 CHECK (kyc_level BETWEEN 0 AND 2),
    kyc_status text NOT NULL DEFAULT 'none' CHECK (kyc_status IN ('none', 'pending', 'approved', 'rejected')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Tokens issued before it count for nothing; null: all count.
    tokens_valid_from timestamptz
) WITH (fillfactor = 80);
-- Whoever signs in may write the name in any case.
CREATE UNIQUE INDEX users_username ON users (lower(username)) WHERE username IS NOT NULL;
CREATE INDEX users_merchants ON users (id) WHERE is_merchant;
CREATE INDEX users_kyc_pending ON users (id) WHERE kyc_status = 'pending';

COMMENT ON COLUMN users.phone IS 'As it was given at the first sign-in: a plus and digits.';

-- One row a sign-in. A token names it; so a person can end one sign-in, or all.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    -- SHA-256 of the refresh token; null: a sign-in without one. `previous_hash` tells that a used one came back.
    refresh_hash bytea CHECK (length(refresh_hash) = 32),
    previous_hash bytea CHECK (length(previous_hash) = 32),
    client text NOT NULL DEFAULT '' CHECK (length(client) <= 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX sessions_of_user ON sessions (user_id, id);
CREATE INDEX sessions_expired ON sessions (expires_at);
CREATE UNIQUE INDEX sessions_refresh ON sessions (refresh_hash) WHERE refresh_hash IS NOT NULL;
CREATE INDEX sessions_previous ON sessions (previous_hash) WHERE previous_hash IS NOT NULL;

-- What can be paid: a QR code, a link, a request, an invoice, cash to be taken in or paid out, a voucher. Whoever pays
-- locks the row, so what is paid once is paid once under any concurrency.
CREATE TABLE payables (
    id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('qr', 'link', 'request', 'invoice', 'cash_in', 'cash_out', 'voucher')),
    code text COLLATE "C" UNIQUE CHECK (length(code) BETWEEN 1 AND 64),
    -- Who gets the money and who gives it, users; null: whoever pays, or redeems, it.
    payee_id uuid REFERENCES users,
    payer_id uuid REFERENCES users,
    amount bigint CHECK (amount BETWEEN 1 AND 4611686018427387903), -- null: the payer says
    currency text NOT NULL,
    reusable boolean NOT NULL DEFAULT FALSE,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'canceled', 'rejected', 'expired')),
    expires_at timestamptz,
    due_at timestamptz,
    -- Made under an idempotency key: the key's id (`core.ledger.items.operation_id`), and the hash of what was asked.
    request_key uuid UNIQUE,
    fingerprint bigint,
    details jsonb NOT NULL DEFAULT '{}',
    transfer_id uuid,
    hold_id uuid,
    settled_by uuid REFERENCES users, -- who paid, redeemed, or took the cash
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT payables_has_side CHECK (num_nonnulls(payee_id, payer_id) > 0),
    CONSTRAINT payables_paid_by_transfer CHECK ((state = 'paid') = (transfer_id IS NOT NULL)),
    CONSTRAINT payables_reusable_not_paid CHECK (NOT reusable OR state <> 'paid')
) WITH (fillfactor = 80);
CREATE INDEX payables_of_payee ON payables (payee_id, kind, created_at, id) WHERE payee_id IS NOT NULL;
CREATE INDEX payables_of_payer ON payables (payer_id, kind, created_at, id) WHERE payer_id IS NOT NULL;
CREATE INDEX payables_expiring ON payables (expires_at) WHERE state = 'open' AND expires_at IS NOT NULL;
CREATE INDEX payables_due ON payables (due_at, id) WHERE state = 'open' AND kind = 'invoice';
CREATE INDEX payables_cash ON payables (created_at, id) WHERE state = 'open' AND kind IN ('cash_in', 'cash_out');
CREATE INDEX payables_vouchers ON payables (created_at, id) WHERE kind = 'voucher';
CREATE INDEX payables_transfer ON payables (transfer_id) WHERE transfer_id IS NOT NULL;

COMMENT ON COLUMN payables.state IS 'Past expires_at an open one is expired, whether the expirer has been here or not.';

-- Who did what, and what it was before and after. Written by the transaction that does it.
CREATE TABLE audit_events (
    id uuid PRIMARY KEY,
    type text NOT NULL CHECK (length(type) BETWEEN 1 AND 100),
    actor text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
    user_id uuid, -- whom it concerns
    object_id text CHECK (length(object_id) <= 255),
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_events_type ON audit_events (type, id);
CREATE INDEX audit_events_user ON audit_events (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_events_object ON audit_events (object_id, id) WHERE object_id IS NOT NULL;

COMMENT ON COLUMN audit_events.actor IS 'user:<id>, admin, internal, system:<job>.';

-- What an administrator sets at run time; it wins over the setting of the same name. Every process reads it twice a
-- second.
CREATE TABLE platform_settings (
    name text PRIMARY KEY,
    value jsonb NOT NULL,
    updated_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT ON users, sessions, payables, audit_events TO tallystick_serving;
GRANT INSERT ON principals TO tallystick_serving;
GRANT SELECT, INSERT, UPDATE, DELETE ON platform_settings TO tallystick_serving;
GRANT UPDATE (
    username, password_hash, name, is_merchant, is_agent, merchant_status, merchant_fee_bps, merchant_since,
    kyc_level, kyc_status, tokens_valid_from
) ON users TO tallystick_serving;
GRANT UPDATE (refresh_hash, previous_hash, used_at, expires_at, revoked_at) ON sessions TO tallystick_serving;
GRANT DELETE ON sessions TO tallystick_serving;
GRANT UPDATE (
    state, due_at, details, transfer_id, hold_id, settled_by, updated_at
) ON payables TO tallystick_serving;
