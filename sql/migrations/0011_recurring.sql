-- What pays by itself: mandates, by which due invoices are paid, and subscriptions.

-- Whose invoices a payer has paid without being asked, and up to which amount.
CREATE TABLE mandates (
    id uuid PRIMARY KEY,
    payer_id uuid NOT NULL REFERENCES users,
    issuer_id uuid NOT NULL REFERENCES users,
    autopay boolean NOT NULL,
    max_amount bigint CHECK (max_amount > 0), -- null: any
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT mandates_one_a_pair UNIQUE (payer_id, issuer_id)
);
CREATE INDEX mandates_paying ON mandates (payer_id, issuer_id) WHERE autopay AND state = 'active';
-- From a mandate to what it pays.
CREATE INDEX payables_mandated ON payables (payer_id, payee_id, due_at, id) WHERE state = 'open' AND kind = 'invoice';

-- Invoices that could not be paid by themselves, and when that is tried again.
CREATE TABLE autopay_failures (
    invoice_id uuid PRIMARY KEY REFERENCES payables,
    attempts integer NOT NULL CHECK (attempts > 0),
    retry_at timestamptz NOT NULL,
    last_error text NOT NULL CHECK (length(last_error) <= 100)
) WITH (fillfactor = 80);

-- `next_charge_at` is where the next period begins that is not paid yet; `try_at` is when it is tried, which is later
-- once a try has failed. The charge of a period has the ledger key (subscription, beginning of the period).
CREATE TABLE subscriptions (
    id uuid PRIMARY KEY,
    payer_id uuid NOT NULL REFERENCES users,
    merchant_id uuid NOT NULL REFERENCES users,
    amount bigint NOT NULL CHECK (amount BETWEEN 1 AND 4611686018427387903),
    currency text NOT NULL,
    interval_days integer NOT NULL CHECK (interval_days BETWEEN 1 AND 365),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'past_due', 'canceled')),
    next_charge_at timestamptz NOT NULL,
    try_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- failed ones in this period
    last_error text CHECK (length(last_error) <= 100),
    missed_periods integer NOT NULL DEFAULT 0 CHECK (missed_periods >= 0),
    last_transfer_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 80);
CREATE INDEX subscriptions_of_payer ON subscriptions (payer_id, created_at, id);
CREATE INDEX subscriptions_of_merchant ON subscriptions (merchant_id, created_at, id);
CREATE INDEX subscriptions_due ON subscriptions (try_at, id) WHERE state <> 'canceled';

GRANT SELECT, INSERT ON mandates, autopay_failures, subscriptions TO tallystick_serving;
GRANT UPDATE (autopay, max_amount, state, updated_at) ON mandates TO tallystick_serving;
GRANT UPDATE (attempts, retry_at, last_error) ON autopay_failures TO tallystick_serving;
GRANT DELETE ON autopay_failures TO tallystick_serving;
GRANT UPDATE (
    state, next_charge_at, try_at, attempts, last_error, missed_periods, last_transfer_id, updated_at
) ON subscriptions TO tallystick_serving;
