-- What each merchant has sold on each UTC day, as it stood when the day was over. Days without sales have no row.

CREATE TABLE settlements (
    user_id uuid NOT NULL REFERENCES users,
    day date NOT NULL,
    currency text NOT NULL,
    gross bigint NOT NULL,
    fees bigint NOT NULL,
    refunds bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, day)
);

-- How far the report of a day has come: the last merchant that was looked at; done when `finished_at` says so.
CREATE TABLE settlement_days (
    day date PRIMARY KEY,
    last_user_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    finished_at timestamptz
);

GRANT SELECT, INSERT ON settlements, settlement_days TO tallystick_serving;
GRANT UPDATE (last_user_id, finished_at) ON settlement_days TO tallystick_serving;
