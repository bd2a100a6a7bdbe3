-- Cash agents, whom an administrator appoints, the agent of a cash request, and senders whom a user has blocked.

-- `users.is_agent` says whether an agent may act now; this row has the terms, and outlives a suspension. Bounds are in
-- minor units, null: none. `float_max` bounds the wallet after a cash-out, `day_max` what leaves it on one UTC day.
CREATE TABLE agents (
    user_id uuid PRIMARY KEY REFERENCES users,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
    request_max bigint CHECK (request_max > 0),
    day_max bigint CHECK (day_max > 0),
    float_max bigint CHECK (float_max > 0),
    appointed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO agents (user_id) SELECT u.id FROM users AS u
WHERE u.is_agent;

-- The agent whom the customer has named, or to whom the customer has shown the code.
ALTER TABLE payables ADD COLUMN agent_id uuid REFERENCES users;
CREATE INDEX payables_of_agent ON payables (agent_id, created_at, id) WHERE agent_id IS NOT NULL AND state = 'open';
-- Open items of one sender for one payer are counted, and have a bound.
CREATE INDEX payables_open_between ON payables (payee_id, payer_id, kind)
WHERE state = 'open' AND kind IN ('request', 'invoice');

-- A blocked sender can neither ask the user for money nor bill the user.
CREATE TABLE blocked_senders (
    user_id uuid NOT NULL REFERENCES users,
    sender_id uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, sender_id),
    CONSTRAINT blocked_senders_others CHECK (user_id <> sender_id)
);

GRANT SELECT, INSERT ON agents, blocked_senders TO tallystick_serving;
GRANT UPDATE (state, request_max, day_max, float_max, updated_at) ON agents TO tallystick_serving;
GRANT DELETE ON blocked_senders TO tallystick_serving;
GRANT UPDATE (agent_id) ON payables TO tallystick_serving;
