-- name: report_snapshot
-- Let the transaction see one moment of payments and ledger, so that a change meanwhile makes no difference.
SET LOCAL transaction_isolation = 'repeatable read';

-- name: report_memory
-- Let sorts of a large report stay in memory for the most part.
SET LOCAL work_mem = '96MB';

-- name: report_joins
-- Let a large report be joined as a whole. Look-ups of single rows, which suit a small one, would read the indexes of
-- all payments in random order, a million times each.
SET LOCAL enable_nestloop = off;

-- name: report_lookups
-- Let the planner choose again: few rows are looked for.
SET LOCAL enable_nestloop = on;

-- name: make_report_lines
-- Make the table of the rows as the report has them; `no` counts them.
CREATE TEMPORARY TABLE report_lines (
    no integer NOT NULL,
    line integer NOT NULL,
    part text NOT NULL,
    row_id text NOT NULL,
    names text[] NOT NULL,
    own uuid,
    amount bigint NOT NULL,
    fee bigint,
    currency text NOT NULL,
    at timestamptz,
    problem text
) ON COMMIT DROP;

-- name: make_report_found
-- Make the table of the attempts that rows name.
CREATE TEMPORARY TABLE report_found (no integer NOT NULL, attempt_id uuid NOT NULL) ON COMMIT DROP;

-- name: make_report_rows
-- Make the table of the rows as they are compared: `key` is an attempt, or a hash of the row's own id for other money.
CREATE TEMPORARY TABLE report_rows (
    no integer NOT NULL,
    part text NOT NULL,
    key uuid NOT NULL,
    currency text NOT NULL,
    amount bigint NOT NULL,
    fee bigint,
    at timestamptz,
    copy boolean NOT NULL,
    attempt_id uuid,
    payment_id uuid,
    asked_in text,
    state text,
    level bigint,
    told_fee bigint
) ON COMMIT DROP;

-- name: make_report_transfers
-- Make the table of the postings that may be compared, found in two waves.
CREATE TEMPORARY TABLE report_transfers (
    no bigint NOT NULL, part text NOT NULL, key uuid NOT NULL, wave integer NOT NULL
) ON COMMIT DROP;

-- name: make_report_moves
-- Make the table of the provider's money as the ledger has it; `due` is set within the period of the report.
CREATE TEMPORARY TABLE report_moves (
    wave integer NOT NULL,
    no bigint NOT NULL,
    part text NOT NULL,
    key uuid NOT NULL,
    currency text NOT NULL,
    amount bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    due boolean NOT NULL
) ON COMMIT DROP;

-- name: make_report_sums
-- Make the table of the sums of both sides, and of the pairs within sums that differ.
CREATE TEMPORARY TABLE report_sums (
    part text NOT NULL,
    key uuid NOT NULL,
    currency text NOT NULL,
    level bigint,
    there numeric,
    there_fee numeric,
    here numeric,
    here_at timestamptz
) ON COMMIT DROP;

-- name: make_report_pairs
-- Make the table of the rows and movements of one attempt, one to one; null where one side has no more.
CREATE TEMPORARY TABLE report_pairs (no integer, move_no bigint, same boolean NOT NULL) ON COMMIT DROP;

-- name: make_report_verdicts
-- Make the table of the result: a class for each row, and for each movement that no row tells of, with its cause.
CREATE TEMPORARY TABLE report_verdicts (
    no integer,
    part text NOT NULL,
    key uuid NOT NULL,
    class text NOT NULL,
    cause text,
    name text,
    currency text NOT NULL,
    there bigint,
    here bigint,
    here_at timestamptz
) ON COMMIT DROP;

-- name: analyze_lines
-- Let the planner know how many rows there are.
ANALYZE report_lines;

-- name: analyze_found
-- Let the planner know how many rows there are.
ANALYZE report_found;

-- name: analyze_rows
-- Let the planner know how many rows there are.
ANALYZE report_rows;

-- name: analyze_transfers
-- Let the planner know how many rows there are.
ANALYZE report_transfers;

-- name: analyze_moves
-- Let the planner know how many rows there are.
ANALYZE report_moves;

-- name: analyze_sums
-- Let the planner know how many rows there are.
ANALYZE report_sums;

-- name: analyze_pairs
-- Let the planner know how many rows there are.
ANALYZE report_pairs;

-- name: find_by_own_id
-- Find the attempts at the provider $1 whose own id rows name.
INSERT INTO report_found (no, attempt_id)
SELECT
    l.no, a.id AS attempt_id
FROM report_lines AS l
INNER JOIN payment_attempts AS a ON l.own = a.id AND a.provider = $1
WHERE l.part IN ('paid', 'refunded', 'disputed');

-- name: find_by_name
-- Find the attempts that the provider $1 knows by the name at the place $2 of rows that have found none before.
INSERT INTO report_found (no, attempt_id)
SELECT
    l.no, n.attempt_id
FROM report_lines AS l
INNER JOIN payment_names AS n ON n.provider = $1 AND l.names[$2] = n.name
WHERE
    l.part IN ('paid', 'refunded', 'disputed')
    AND NOT EXISTS (SELECT FROM report_found AS f WHERE f.no = l.no);

-- name: find_by_refund
-- Find the attempts at the provider $1 by its ids of refunds, for rows of refunds that have found none before.
INSERT INTO report_found (no, attempt_id)
SELECT DISTINCT ON (l.no)
    l.no, r.attempt_id
FROM report_lines AS l
INNER JOIN payment_refunds AS r ON r.provider_id = any(l.names)
INNER JOIN payment_attempts AS a ON r.attempt_id = a.id AND a.provider = $1
WHERE l.part = 'refunded' AND NOT EXISTS (SELECT FROM report_found AS f WHERE f.no = l.no)
ORDER BY l.no, r.id;

-- name: fill_report_rows
-- Fill the table of rows. Money without a currency has no ledger: the attempt's own level stands for the row's amount.
WITH twins AS (
    SELECT
        l.part, l.row_id, min(l.no) AS first
    FROM report_lines AS l
    WHERE l.problem IS NULL
    GROUP BY l.part, l.row_id
    HAVING count(*) > 1
)

INSERT INTO report_rows (
    no, part, key, currency, amount, fee, at, copy, attempt_id, payment_id, asked_in, state, level, told_fee
)
SELECT
    l.no, l.part,
    CASE
        WHEN a.id IS NOT NULL AND l.part IN ('paid', 'refunded', 'disputed') THEN a.id
        ELSE md5(l.row_id)::uuid
    END AS key,
    CASE WHEN p.currency = 'XXX' THEN p.currency ELSE l.currency END AS currency,
    CASE
        WHEN p.currency = 'XXX' AND l.part = 'paid' THEN a.received
        WHEN p.currency = 'XXX' THEN a.refunded
        ELSE l.amount
    END AS amount,
    l.fee, l.at, coalesce(l.no > t.first, FALSE) AS copy,
    a.id AS attempt_id, p.id AS payment_id, p.currency AS asked_in, a.state,
    CASE l.part WHEN 'refunded' THEN a.refunded WHEN 'disputed' THEN a.disputed ELSE a.received END AS level,
    a.fee AS told_fee
FROM report_lines AS l
LEFT JOIN report_found AS f ON l.no = f.no
LEFT JOIN payment_attempts AS a ON f.attempt_id = a.id
LEFT JOIN payments AS p ON a.payment_id = p.id
LEFT JOIN twins AS t ON l.part = t.part AND l.row_id = t.row_id
WHERE l.problem IS NULL;

-- name: find_period_transfers
-- Find the postings about the provider $1 that were recorded about the period from $2 to before $3: those of the kinds
-- $4, which stand for rows of the parts $5.
WITH kinds AS (
    SELECT
        k.kind, k.part
    FROM unnest($4::text[], $5::text[]) AS k (kind, part)
)

INSERT INTO report_transfers (no, part, key, wave)
SELECT
    t.no, k.part, coalesce((t.metadata ->> 'attempt')::uuid, md5(t.reference)::uuid) AS key, 1 AS wave
FROM kinds AS k
INNER JOIN transfers AS t
    ON
        k.kind = t.kind
        AND batch_of(t.no) >= (SELECT min(b.seq) FROM batches AS b WHERE b.recorded_at >= $2)
        AND batch_of(t.no) <= (SELECT max(b.seq) FROM batches AS b WHERE b.recorded_at < $3)
WHERE t.metadata ->> 'provider' = $1;

-- name: find_other_transfers
-- Find the postings about the provider $1 that the period has not, for rows whose level it does not explain: those of
-- the kinds $2, which stand for rows of the parts $3.
WITH wanted AS (
    SELECT DISTINCT coalesce(r.payment_id::text, l.row_id) AS reference
    FROM report_sums AS s
    INNER JOIN report_rows AS r ON s.part = r.part AND s.key = r.key AND s.currency = r.currency
    INNER JOIN report_lines AS l ON r.no = l.no
    WHERE s.there IS NOT NULL AND (s.here IS NULL OR s.here <> s.level)
),

kinds AS (
    SELECT
        k.kind, k.part
    FROM unnest($2::text[], $3::text[]) AS k (kind, part)
)

INSERT INTO report_transfers (no, part, key, wave)
SELECT
    t.no, k.part, coalesce((t.metadata ->> 'attempt')::uuid, md5(t.reference)::uuid) AS key, 2 AS wave
FROM wanted AS w
INNER JOIN transfers AS t ON w.reference = t.reference
INNER JOIN kinds AS k ON t.kind = k.kind
WHERE
    t.metadata ->> 'provider' = $1
    AND NOT EXISTS (SELECT FROM report_transfers AS known WHERE known.no = t.no);

-- name: fill_report_moves
-- Read the entries of wave $4 on the clearing accounts, whose codes begin with $1; due from $2 to before $3.
WITH moved AS (
    SELECT
        t.no, t.part, t.key, e.account_id,
        CASE
            -- The fee comes back to the account in the same posting.
            WHEN t.part = 'paid' THEN -coalesce(sum(e.amount) FILTER (WHERE e.amount < 0), 0)
            ELSE sum(e.amount)
        END AS amount
    FROM report_transfers AS t
    INNER JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND item_of(e.no) = t.no
    -- A list of numbers is asked for before the join, and a join with the accounts after it.
    WHERE t.wave = $4 AND e.account_id = any(array(SELECT c.id FROM accounts AS c WHERE starts_with(c.code, $1)))
    GROUP BY t.no, t.part, t.key, e.account_id
)

INSERT INTO report_moves (wave, no, part, key, currency, amount, recorded_at, due)
SELECT
    $4 AS wave, m.no, m.part, m.key, c.currency, m.amount, b.recorded_at,
    coalesce(b.recorded_at >= $2 AND b.recorded_at < $3, FALSE) AS due
FROM moved AS m
INNER JOIN accounts AS c ON m.account_id = c.id
INNER JOIN batches AS b ON b.seq = batch_of(m.no);

-- name: fill_moves_without_currency
-- Add payments at the provider $1 without a currency, and so without a posting: of the report, and from $2 to $3. Their
-- numbers are negative.
INSERT INTO report_moves (wave, no, part, key, currency, amount, recorded_at, due)
SELECT
    1 AS wave, -row_number() OVER (ORDER BY a.id, v.part) AS no, v.part, a.id AS key, p.currency, v.amount,
    a.updated_at AS recorded_at, coalesce(a.updated_at >= $2 AND a.updated_at < $3, FALSE) AS due
FROM payment_attempts AS a
INNER JOIN payments AS p ON a.payment_id = p.id AND p.currency = 'XXX'
CROSS JOIN LATERAL (VALUES ('paid', a.received), ('refunded', a.refunded)) AS v (part, amount)
WHERE
    a.provider = $1 AND v.amount > 0
    AND (
        (a.updated_at >= $2 AND a.updated_at < $3)
        OR a.id IN (SELECT f.attempt_id FROM report_found AS f)
    );

-- name: fill_report_sums
-- Sum both sides for each attempt, part and currency.
WITH there AS (
    SELECT
        r.part, r.key, r.currency, max(r.level) AS level, sum(r.amount) AS amount, sum(r.fee) AS fee
    FROM report_rows AS r
    WHERE NOT r.copy
    GROUP BY r.part, r.key, r.currency
),

here AS (
    SELECT
        m.part, m.key, m.currency, sum(m.amount) AS amount, max(m.recorded_at) AS at
    FROM report_moves AS m
    GROUP BY m.part, m.key, m.currency
)

INSERT INTO report_sums (part, key, currency, level, there, there_fee, here, here_at)
SELECT
    coalesce(t.part, h.part) AS part, coalesce(t.key, h.key) AS key, coalesce(t.currency, h.currency) AS currency,
    t.level, t.amount AS there, t.fee AS there_fee, h.amount AS here, h.at AS here_at
FROM there AS t
FULL JOIN here AS h ON t.part = h.part AND t.key = h.key AND t.currency = h.currency;

-- name: add_other_sums
-- Add the movements of the second wave to the sums; they are few.
MERGE INTO report_sums AS s
USING (
    SELECT
        m.part, m.key, m.currency, sum(m.amount) AS amount, max(m.recorded_at) AS at
    FROM report_moves AS m
    WHERE m.wave = 2
    GROUP BY m.part, m.key, m.currency
) AS h
    ON s.part = h.part AND s.key = h.key AND s.currency = h.currency
WHEN MATCHED THEN
    UPDATE SET here = coalesce(s.here, 0) + h.amount, here_at = greatest(s.here_at, h.at)
WHEN NOT MATCHED THEN
    INSERT (part, key, currency, here, here_at) VALUES (h.part, h.key, h.currency, h.amount, h.at);

-- name: pair_equal_amounts
-- Pair rows and movements of one attempt and amount, where the sums differ.
WITH there AS (
    SELECT
        r.no, r.part, r.key, r.currency, r.amount,
        row_number() OVER (PARTITION BY r.part, r.key, r.currency, r.amount ORDER BY r.no) AS place
    FROM report_rows AS r
    INNER JOIN report_sums AS s ON r.part = s.part AND r.key = s.key AND r.currency = s.currency AND s.there <> s.here
    WHERE NOT r.copy
),

here AS (
    SELECT
        m.no, m.part, m.key, m.currency, m.amount,
        row_number() OVER (PARTITION BY m.part, m.key, m.currency, m.amount ORDER BY m.no) AS place
    FROM report_moves AS m
    INNER JOIN report_sums AS s ON m.part = s.part AND m.key = s.key AND m.currency = s.currency AND s.there <> s.here
)

INSERT INTO report_pairs (no, move_no, same)
SELECT
    t.no, h.no AS move_no, TRUE AS same
FROM there AS t
INNER JOIN here AS h
    ON t.part = h.part AND t.key = h.key AND t.currency = h.currency AND t.amount = h.amount AND t.place = h.place;

-- name: pair_other_amounts
-- Pair the rows and movements of one attempt that are left, in their order; one side may have more.
WITH there AS (
    SELECT
        r.no, r.part, r.key, r.currency,
        row_number() OVER (PARTITION BY r.part, r.key, r.currency ORDER BY r.no) AS place
    FROM report_rows AS r
    INNER JOIN report_sums AS s ON r.part = s.part AND r.key = s.key AND r.currency = s.currency AND s.there <> s.here
    WHERE NOT r.copy AND NOT EXISTS (SELECT FROM report_pairs AS p WHERE p.no = r.no)
),

here AS (
    SELECT
        m.no, m.part, m.key, m.currency,
        row_number() OVER (PARTITION BY m.part, m.key, m.currency ORDER BY m.no) AS place
    FROM report_moves AS m
    INNER JOIN report_sums AS s ON m.part = s.part AND m.key = s.key AND m.currency = s.currency AND s.there <> s.here
    WHERE NOT EXISTS (SELECT FROM report_pairs AS p WHERE p.move_no = m.no)
)

INSERT INTO report_pairs (no, move_no, same)
SELECT
    t.no, h.no AS move_no, FALSE AS same
FROM there AS t
FULL JOIN here AS h ON t.part = h.part AND t.key = h.key AND t.currency = h.currency AND t.place = h.place;

-- name: judge_rows
-- Give each row its class. Equal sums match as a whole; both sides more than $1 seconds apart are late.
WITH compared AS (
    SELECT
        r.no, r.part, r.key, r.currency, r.amount, r.at, r.copy, r.asked_in, r.level, r.told_fee, s.there,
        CASE WHEN s.there = s.here THEN s.there_fee ELSE r.fee END AS fee, s.here AS total, p.same, p.move_no,
        coalesce(m.amount, s.here) AS here, coalesce(m.recorded_at, s.here_at) AS here_at
    FROM report_rows AS r
    LEFT JOIN report_sums AS s ON r.part = s.part AND r.key = s.key AND r.currency = s.currency
    LEFT JOIN report_pairs AS p ON r.no = p.no
    LEFT JOIN report_moves AS m ON p.move_no = m.no AND r.part = m.part AND r.currency = m.currency
),

judged AS (
    SELECT
        c.no, c.part, c.key, c.currency, c.amount, c.here, c.here_at,
        CASE
            WHEN c.copy THEN 'duplicate twin'
            WHEN c.total IS NULL AND c.currency <> c.asked_in THEN 'currency other'
            WHEN c.total IS NULL THEN 'missing_here none'
            WHEN c.there <> c.total AND c.move_no IS NULL AND c.part = 'paid' THEN 'duplicate second'
            WHEN c.there <> c.total AND c.move_no IS NULL THEN 'missing_here more'
            WHEN c.there <> c.total AND NOT c.same THEN 'amount report'
            WHEN c.currency = c.asked_in AND c.total <> c.level THEN 'amount payment'
            WHEN c.part = 'paid' AND c.told_fee > 0 AND c.fee <> c.told_fee THEN 'amount fee'
            WHEN abs(extract(EPOCH FROM c.here_at - c.at)) > $1 THEN 'late apart'
            ELSE 'matched all'
        END AS verdict
    FROM compared AS c
)

INSERT INTO report_verdicts (no, part, key, class, cause, currency, there, here, here_at)
SELECT
    j.no, j.part, j.key, split_part(j.verdict, ' ', 1) AS class, split_part(j.verdict, ' ', 2) AS cause, j.currency,
    j.amount AS there, j.here, j.here_at
FROM judged AS j;

-- name: judge_unreadable
-- Give the rows that could not be read their class.
INSERT INTO report_verdicts (no, part, key, class, currency)
SELECT
    l.no, l.part, md5(l.row_id)::uuid AS key, 'unreadable' AS class, l.currency
FROM report_lines AS l
WHERE l.problem IS NOT NULL;

-- name: judge_moves
-- Find what the ledger has in the period and the report has not.
INSERT INTO report_verdicts (part, key, class, name, currency, here, here_at)
SELECT
    m.part, m.key, 'missing_there' AS class, coalesce(t.metadata ->> 'attempt', t.reference, m.key::text) AS name,
    m.currency, m.amount AS here, m.recorded_at AS here_at
FROM report_moves AS m
LEFT JOIN transfers AS t ON m.no = t.no
LEFT JOIN report_pairs AS p ON m.no = p.move_no
WHERE
    m.due
    AND (
        (p.move_no IS NOT NULL AND p.no IS NULL)
        OR NOT EXISTS (SELECT FROM report_rows AS r WHERE r.part = m.part AND r.key = m.key)
    );

-- name: report_counts
-- One row for each class, part and currency: the number of rows, and the sums of both sides in minor units.
SELECT
    v.class, v.part, v.currency, count(*) AS rows, coalesce(sum(v.there), 0)::text AS there,
    coalesce(sum(v.here), 0)::text AS here
FROM report_verdicts AS v
GROUP BY v.class, v.part, v.currency
ORDER BY v.class, v.part, v.currency;

-- name: report_fees
-- One row for each currency: the fees of payments, in minor units, that the report tells and nobody has told here.
SELECT
    r.currency, sum(r.fee)::text AS fees
FROM report_rows AS r
WHERE r.part = 'paid' AND NOT r.copy AND r.told_fee = 0 AND r.fee <> 0
GROUP BY r.currency
ORDER BY r.currency;

-- name: report_differences
-- Everything that does not match: the rows in the order of the report, and then the movements that it does not have.
SELECT
    l.line, v.class, v.cause, v.part, coalesce(l.row_id, '') AS row_id, coalesce(l.names[1], '') AS name,
    r.payment_id, coalesce(r.attempt_id::text, v.name, '') AS key, v.currency, v.there, v.here, l.at, v.here_at,
    l.problem, r.asked_in, r.state, r.level, r.told_fee, r.fee
FROM report_verdicts AS v
LEFT JOIN report_lines AS l ON v.no = l.no
LEFT JOIN report_rows AS r ON v.no = r.no
WHERE v.class <> 'matched'
ORDER BY v.no NULLS LAST, v.here_at, v.key;

-- name: record_report
-- Keep the counts of a comparison: provider, file, period, counts.
INSERT INTO provider_reports (provider, file, since, until, counts)
VALUES ($1, $2, $3, $4, $5::text::jsonb);
