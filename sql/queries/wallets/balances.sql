-- name: wallet_entries
-- The entries of the account of code $1 with versions from $2 down to $3, newest first: transfer_id, kind, amount,
-- recorded_at, version, is_fee, purpose, and the user on the other side. Versions are dense, so a range of them is a
-- page. Legs are posted in pairs, so the other side of place 0 is place 1, and that of place 2 is place 3; the first
-- pair is the payment, and the second its fee.
SELECT
    t.id AS transfer_id, t.kind, e.amount, b.recorded_at, e.version, e.no - t.no > 1 AS is_fee,
    coalesce(paid.purpose, t.reference) AS purpose,
    other.id, other.principal_id, other.wallet_id, other.phone, other.username, other.name, other.is_merchant,
    other.is_agent, other.merchant_status, other.merchant_fee_bps, other.merchant_since, other.kyc_level,
    other.kyc_status, other.created_at, other.tokens_valid_from, other.phone_proven_at, TRUE AS live
FROM entries AS e
INNER JOIN batches AS b ON b.seq = batch_of(e.no)
INNER JOIN transfers AS t ON t.no = item_of(e.no)
LEFT JOIN entries AS leg ON batch_of(leg.no) = batch_of(e.no) AND leg.no = e.no + 1 - 2 * (e.no % 2)
LEFT JOIN accounts AS side ON leg.account_id = side.id
LEFT JOIN users AS other
    ON other.wallet_id = CASE WHEN side.code ~ '^wallet:[0-9a-f-]{36}$' THEN substr(side.code, 8)::uuid END
LEFT JOIN LATERAL (
    SELECT coalesce(p.details ->> 'description', p.details ->> 'reference') AS purpose
    FROM payables AS p
    WHERE p.transfer_id = t.id
    ORDER BY p.id
    LIMIT 1
) AS paid ON TRUE
WHERE e.account_id = (SELECT a.id FROM accounts AS a WHERE a.code = $1) AND e.version BETWEEN $3 AND $2
ORDER BY e.version DESC;

-- name: wallet_balance
-- One row: balance, amount held, currency and number of entries (version) of the account of code $1.
SELECT balance, held, currency, version FROM accounts WHERE code = $1;
