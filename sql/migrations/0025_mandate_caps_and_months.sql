-- Caps and notices of mandates, and subscriptions that go by the calendar's months.

-- `period_spent` has been paid by the mandate in the UTC day, week or month that began at `period_start`.
ALTER TABLE mandates
ADD COLUMN period text CHECK (period IN ('day', 'week', 'month')),
ADD COLUMN period_max bigint CHECK (period_max > 0),
ADD COLUMN period_start timestamptz,
ADD COLUMN period_spent bigint NOT NULL DEFAULT 0 CHECK (period_spent >= 0),
ADD COLUMN notice_hours integer NOT NULL DEFAULT 0 CHECK (notice_hours BETWEEN 0 AND 8760),
ADD CONSTRAINT mandates_cap_has_period CHECK ((period IS NULL) = (period_max IS NULL));

-- Invoices whose payer was told that a mandate will pay them, and from when on it may.
CREATE TABLE autopay_notices (
    invoice_id uuid PRIMARY KEY REFERENCES payables,
    told_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pays_at timestamptz NOT NULL
);

-- A month's periods begin on the anchor's day of the month, or on the last day of a shorter month.
ALTER TABLE subscriptions
ADD COLUMN interval_months integer CHECK (interval_months BETWEEN 1 AND 12),
ADD COLUMN anchor timestamptz,
ADD CONSTRAINT subscriptions_months_have_anchor CHECK ((interval_months IS NULL) = (anchor IS NULL));

-- A person types a voucher in any case, with blanks and hyphens, and O for 0.
CREATE INDEX payables_voucher_as_typed ON payables (
    translate(lower(code), 'oil-_', '011')
) WHERE kind = 'voucher';

GRANT UPDATE (period, period_max, period_start, period_spent, notice_hours) ON mandates TO tallystick_serving;
GRANT SELECT, INSERT ON autopay_notices TO tallystick_serving;
GRANT UPDATE (anchor) ON subscriptions TO tallystick_serving;
