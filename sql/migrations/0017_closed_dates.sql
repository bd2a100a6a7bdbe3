-- The closed date of a currency: nothing may take effect before it any more. ledger_post reads a row under a SHARE lock
-- of the table, which a move of a date waits for.
CREATE TABLE closed_dates (
    currency text PRIMARY KEY,
    closed_before timestamptz, -- null: it was opened again
    revision integer NOT NULL DEFAULT 1,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE closed_dates IS 'Before which no transfer may take effect, by currency; see core.closing.';

GRANT SELECT, INSERT, UPDATE ON closed_dates TO tallystick_serving;
