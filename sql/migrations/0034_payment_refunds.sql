-- Refunds that were asked for here. Refunds made elsewhere are seen as amounts of their attempt.

CREATE TABLE payment_refunds (
    id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payments,
    attempt_id uuid NOT NULL REFERENCES payment_attempts,
    request_id text COLLATE "C" NOT NULL CHECK (length(request_id) BETWEEN 1 AND 255),
    amount bigint NOT NULL CHECK (amount > 0), -- in units of the payment's scale
    state text NOT NULL DEFAULT 'created' CHECK (state IN ('created', 'pending', 'unknown', 'done', 'failed')),
    provider_id text COLLATE "C" CHECK (length(provider_id) BETWEEN 1 AND 255),
    word text NOT NULL DEFAULT '' CHECK (length(word) <= 200), -- the provider's own word for its standing
    error text CHECK (length(error) <= 500), -- a code and a sentence
    looks integer NOT NULL DEFAULT 0,
    next_look_at timestamptz, -- null: nobody asks the provider any more
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT payment_refunds_key UNIQUE (payment_id, request_id)
);

CREATE INDEX payment_refunds_due ON payment_refunds (next_look_at) WHERE next_look_at IS NOT NULL;

COMMENT ON COLUMN payment_refunds.state IS
'created: the provider has not answered; pending: it is at work; unknown: nobody knows; done and failed are its word.';

GRANT SELECT, INSERT ON payment_refunds TO tallystick_serving;
GRANT UPDATE (state, provider_id, word, error, looks, next_look_at, updated_at) ON payment_refunds
TO tallystick_serving;
