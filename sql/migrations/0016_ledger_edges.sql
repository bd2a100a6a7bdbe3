-- Open holds as the accounts see them, revisions, and the unit of part reversals.

-- `incoming` is the sum that open holds will bring to the account: a ceiling counts it. `changes` counts the changes
-- that are no entry: those of holds, limits, state and metadata. The revision of an account is `version + changes`, so
-- that a plain transfer writes no further column.
ALTER TABLE accounts
ADD COLUMN incoming bigint NOT NULL DEFAULT 0,
ADD COLUMN changes bigint NOT NULL DEFAULT 0,
DROP CONSTRAINT accounts_check,
ADD CONSTRAINT accounts_check CHECK (
    balance BETWEEN -4611686018427387903 AND 4611686018427387903 AND held BETWEEN 0 AND 4611686018427387903
    AND incoming BETWEEN 0 AND 4611686018427387903 AND state BETWEEN 0 AND 2
    AND coalesce(floor >= -4611686018427387903 AND floor <= 4611686018427387903, TRUE)
    AND coalesce(ceiling >= -4611686018427387903 AND ceiling <= 4611686018427387903, TRUE)
    AND coalesce(floor <= ceiling, TRUE) AND coalesce(transfer_max > 0, TRUE)
);

-- The number of a hold's events, which its ETag shows.
ALTER TABLE holds ADD COLUMN revision integer NOT NULL DEFAULT 1;

-- The leg, from 0, in whose minor units the parts of a reversal are counted. Parts from before this column are counted
-- in the first leg, and go on so.
ALTER TABLE reversed_amounts ADD COLUMN leg smallint NOT NULL DEFAULT 0;

DO $$
BEGIN
    -- A new database has no holds, and ledger_part is made after the migrations.
    IF EXISTS (SELECT FROM holds) THEN
        UPDATE holds AS h SET revision = (SELECT count(e.no) FROM hold_events AS e WHERE e.hold = h.no);
        UPDATE accounts AS a SET incoming = due.amount
        FROM (
            SELECT l.account_id, sum(l.amount - coalesce(l.captured, 0)) AS amount
            FROM holds AS h
            CROSS JOIN LATERAL unnest(h.leg_accounts, h.leg_amounts, ledger_part(h.leg_amounts, h.captured))
                WITH ORDINALITY AS l (account_id, amount, captured, place)
            WHERE h.state = 0 AND l.place > 1
            GROUP BY l.account_id
        ) AS due
        WHERE a.id = due.account_id;
    END IF;
END
$$;
