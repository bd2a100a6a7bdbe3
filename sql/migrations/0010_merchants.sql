-- Merchants: their API keys, what was signed with them, and the lines of their statements.

CREATE TABLE merchant_api_keys (
    key_id text COLLATE "C" PRIMARY KEY CHECK (length(key_id) BETWEEN 1 AND 64),
    user_id uuid NOT NULL REFERENCES users,
    sealed_secret bytea NOT NULL CHECK (octet_length(sealed_secret) BETWEEN 29 AND 512),
    scope text NOT NULL DEFAULT 'transactions:read' CHECK (length(scope) <= 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz
);
CREATE INDEX merchant_api_keys_of_user ON merchant_api_keys (user_id, created_at, key_id) WHERE deleted_at IS NULL;

COMMENT ON COLUMN merchant_api_keys.sealed_secret IS 'Encrypted: whoever checks an HMAC needs the secret itself.';

-- One row a signature that was used, for as long as its time would let it pass again.
CREATE TABLE merchant_api_signatures (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32), -- SHA-256 of the key's id and the signature
    expires_at timestamptz NOT NULL
);
CREATE INDEX merchant_api_signatures_expired ON merchant_api_signatures (expires_at);

-- What a merchant's statement shows, a line an entry of the wallet: `in` a sale, `fee` the fee on one, `refund` money
-- given back; null for all else. A sale is what somebody else has paid; not a sale is what came out of a system
-- account or over an agent's counter, a refund received, or a payment of one's own code. The legs of a payment are
-- payer, payee, who pays the fee, who gets it: 0 to 3 in the low twelve bits of `no`.
CREATE VIEW merchant_lines AS
SELECT
    e.account_id,
    e.version,
    e.amount,
    b.recorded_at,
    t.id AS transfer_id,
    CASE
        WHEN t.target IS NOT NULL OR t.kind LIKE ANY(ARRAY['refund%', 'admin.refund%'])
            THEN CASE WHEN e.amount < 0 THEN 'refund' END
        WHEN
            t.kind LIKE ANY(
                ARRAY[
                    'wallet.topup%', 'wallet.airdrop%', 'wallet.seed%', 'airdrop%', 'seed%', 'voucher%', 'cash%',
                    'admin%'
                ]
            )
            THEN NULL
        WHEN e.no & 4095 = 2 AND e.amount < 0 THEN 'fee'
        WHEN
            e.no & 4095 = 1 AND e.amount > 0 AND NOT EXISTS (
                SELECT FROM entries AS own
                WHERE own.account_id = e.account_id AND own.version = e.version - 1 AND own.no = e.no - 1
            )
            THEN 'in'
    END AS direction
FROM entries AS e
INNER JOIN batches AS b ON b.seq = e.no >> 22
INNER JOIN transfers AS t ON t.no = (e.no >> 12) << 12;

GRANT SELECT, INSERT ON merchant_api_keys TO tallystick_serving;
GRANT UPDATE (deleted_at) ON merchant_api_keys TO tallystick_serving;
GRANT SELECT, INSERT, UPDATE, DELETE ON merchant_api_signatures TO tallystick_serving;
GRANT SELECT ON merchant_lines TO tallystick_serving;
