-- Comparisons of providers' reports with payments and ledger. The rows of a report stay in its file and in the list of
-- differences; the database keeps the counts, which metrics show.

CREATE TABLE provider_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider text COLLATE "C" NOT NULL CHECK (provider ~ '^[a-z0-9_]{1,32}$'),
    file text NOT NULL CHECK (length(file) BETWEEN 1 AND 255),
    since timestamptz,
    until timestamptz,
    counts jsonb NOT NULL, -- rows by class
    compared_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX provider_reports_latest ON provider_reports (provider, id DESC);

COMMENT ON TABLE provider_reports IS 'One row per comparison; the latest of each provider is that of the metrics.';

GRANT SELECT ON provider_reports TO tallystick_serving;
