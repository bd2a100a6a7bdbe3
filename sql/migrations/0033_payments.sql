-- Payments through providers. A payment is the caller's wish, an attempt is one try at one provider, and the timeline
-- tells everything that has happened. Amounts are whole numbers of the smallest unit: 10 to the power of -`scale` of
-- the currency. The currency XXX is none (ISO 4217); such payments have no money in the ledger.

CREATE TABLE payments (
    id uuid PRIMARY KEY,
    surface text COLLATE "C" NOT NULL CHECK (surface ~ '^[a-z_]{1,32}$'),
    caller text COLLATE "C" NOT NULL CHECK (length(caller) BETWEEN 1 AND 128),
    request_id text COLLATE "C" NOT NULL CHECK (length(request_id) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32), -- SHA-256 of the request
    principal_id integer, -- is told of the payment by events; null: nobody
    amount bigint NOT NULL CHECK (amount > 0 AND amount < 4611686018427387904),
    scale smallint NOT NULL CHECK (scale BETWEEN 0 AND 8),
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    method text NOT NULL CHECK (method IN ('hosted_card', 'payment_link', 'phone')),
    account text COLLATE "C" CHECK (length(account) BETWEEN 1 AND 128), -- null: the platform's own for such money
    details jsonb NOT NULL DEFAULT '{}', -- title, reference, customer, addresses, metadata
    state text NOT NULL DEFAULT 'created' CHECK (
        state IN (
            'created', 'pending', 'processing', 'unknown', 'paid', 'mismatched', 'failed', 'canceled', 'expired'
        )
    ),
    wish text CHECK (wish IN ('cancel', 'expire')),
    routes text[] NOT NULL CHECK (cardinality(routes) BETWEEN 1 AND 8), -- the providers to be tried, in this order
    paid bigint NOT NULL DEFAULT 0 CHECK (paid >= 0),
    refunded bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    disputed bigint NOT NULL DEFAULT 0,
    revision integer NOT NULL DEFAULT 0, -- the number of rows of its timeline
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT payments_key UNIQUE (surface, caller, request_id)
);

CREATE INDEX payments_of_caller ON payments (surface, caller, created_at, id);
CREATE INDEX payments_to_expire ON payments (expires_at)
WHERE expires_at IS NOT NULL AND wish IS NULL AND state IN ('created', 'pending', 'processing', 'unknown');

COMMENT ON TABLE payments IS 'One row per caller and request id: what shall be paid, and how that stands.';
COMMENT ON COLUMN payments.wish IS
'Nobody shall pay any more, for this reason. A wish is no answer: the provider is asked, and the state follows.';

CREATE TABLE payment_attempts (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payments,
    number smallint NOT NULL CHECK (number BETWEEN 1 AND 8),
    provider text COLLATE "C" NOT NULL CHECK (provider ~ '^[a-z0-9_]{1,32}$'),
    route jsonb NOT NULL DEFAULT '{}', -- why this provider
    provider_id text COLLATE "C" CHECK (length(provider_id) BETWEEN 1 AND 255),
    names jsonb NOT NULL DEFAULT '{}', -- other ids that the provider has for it
    state text NOT NULL DEFAULT 'created' CHECK (
        state IN (
            'created', 'pending', 'processing', 'unknown', 'paid', 'mismatched', 'failed', 'canceled', 'expired'
        )
    ),
    url text CHECK (length(url) <= 4096),
    word text NOT NULL DEFAULT '' CHECK (length(word) <= 200), -- the provider's own word for its standing
    error text CHECK (length(error) <= 500), -- a code and a sentence
    received bigint NOT NULL DEFAULT 0 CHECK (received >= 0),
    refunded bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND received),
    disputed bigint NOT NULL DEFAULT 0,
    fee bigint NOT NULL DEFAULT 0 CHECK (fee >= 0),
    on_suspense bigint NOT NULL DEFAULT 0,
    foreign_amount bigint NOT NULL DEFAULT 0 CHECK (foreign_amount >= 0),
    foreign_currency text COLLATE "C",
    giving_up boolean NOT NULL DEFAULT FALSE, -- the provider is asked to close it
    looks integer NOT NULL DEFAULT 0,
    next_look_at timestamptz, -- null: nobody asks the provider any more
    expires_at timestamptz, -- at the provider
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT payment_attempts_number UNIQUE (payment_id, number),
    CONSTRAINT payment_attempts_foreign CHECK ((foreign_amount > 0) = (foreign_currency IS NOT NULL))
);

CREATE INDEX payment_attempts_due ON payment_attempts (provider, next_look_at) WHERE next_look_at IS NOT NULL;

COMMENT ON COLUMN payment_attempts.next_look_at IS
'The time of the next look. A claim moves it on, so an attempt whose worker was lost is looked at again.';
COMMENT ON COLUMN payment_attempts.on_suspense IS
'Minor units of this attempt that lie on the suspense account; negative where the merchant owes them.';

-- Everything that has happened to a payment. Rows are added and never changed.
CREATE TABLE payment_timeline (
    payment_id uuid NOT NULL REFERENCES payments,
    no integer NOT NULL CHECK (no > 0),
    attempt_id uuid REFERENCES payment_attempts,
    kind text NOT NULL CHECK (kind ~ '^[a-z_]{1,32}$'),
    actor text NOT NULL CHECK (length(actor) BETWEEN 1 AND 128),
    state text NOT NULL, -- of the payment, afterwards
    data jsonb NOT NULL DEFAULT '{}',
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (payment_id, no)
);

COMMENT ON COLUMN payment_timeline.actor IS
'`caller`, `provider:<name>`, `event:<id>`, `reconcile`, `expire`, or `person:<name>`.';

-- The names under which events find an attempt: the provider's id of it, and others. A name belongs to its first owner.
CREATE TABLE payment_names (
    provider text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    attempt_id uuid NOT NULL REFERENCES payment_attempts,
    PRIMARY KEY (provider, name)
);

GRANT SELECT, INSERT ON payments, payment_attempts, payment_timeline, payment_names TO tallystick_serving;
GRANT UPDATE (state, wish, paid, refunded, disputed, revision, updated_at) ON payments TO tallystick_serving;
GRANT UPDATE (
    provider_id, names, state, url, word, error, received, refunded, disputed, fee, on_suspense, foreign_amount,
    foreign_currency, giving_up, looks, next_look_at, expires_at, updated_at
) ON payment_attempts TO tallystick_serving;
