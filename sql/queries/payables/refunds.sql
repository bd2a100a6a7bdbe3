-- name: refund_original
-- One row: the transfer of id $1 with its first five legs in order, more than any payment has, and its currency, of
-- which a payment has one.
SELECT
    t.no,
    t.kind,
    t.target,
    array_agg(a.code ORDER BY e.no) AS accounts,
    array_agg(e.amount ORDER BY e.no) AS amounts,
    min(a.currency) AS currency
FROM keys AS k
INNER JOIN transfers AS t ON k.no = t.no
INNER JOIN entries AS e ON batch_of(e.no) = batch_of(t.no) AND e.no BETWEEN t.no AND t.no + 4
INNER JOIN accounts AS a ON e.account_id = a.id
WHERE k.id = $1
GROUP BY t.no;

-- name: refund_of_id
-- One row: the refund of id $1 and kind $2, its amount, the original transfer, and the account that gives the money.
SELECT r.id, o.id AS original_id, e.amount, a.currency, g.code AS giver, b.recorded_at
FROM keys AS k
INNER JOIN transfers AS r ON k.no = r.no
INNER JOIN transfers AS o ON r.target = o.no
INNER JOIN batches AS b ON b.seq = batch_of(r.no)
INNER JOIN entries AS e ON batch_of(e.no) = batch_of(r.no) AND e.no = r.no
INNER JOIN accounts AS a ON e.account_id = a.id
INNER JOIN entries AS ge ON batch_of(ge.no) = batch_of(r.no) AND ge.no = r.no + 1
INNER JOIN accounts AS g ON ge.account_id = g.id
WHERE k.id = $1 AND r.kind = $2;

-- name: user_of_wallet
-- One row: the user of wallet $1.
SELECT
    u.id, u.principal_id, u.wallet_id, u.phone, u.username, u.name, u.is_merchant, u.is_agent, u.merchant_status,
    u.merchant_fee_bps, u.merchant_since, u.kyc_level, u.kyc_status, u.created_at, u.tokens_valid_from,
    u.phone_proven_at, TRUE AS live
FROM users AS u
WHERE u.wallet_id = $1;
