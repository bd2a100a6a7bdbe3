-- A named person's word on money in suspense: it is accepted for the merchant, or was given back at the provider.

ALTER TABLE payment_attempts
ADD COLUMN accepted bigint NOT NULL DEFAULT 0 CHECK (accepted BETWEEN 0 AND received),
ADD COLUMN foreign_returned bigint NOT NULL DEFAULT 0 CHECK (foreign_returned BETWEEN 0 AND foreign_amount);

COMMENT ON COLUMN payment_attempts.accepted IS
'The amount that a person has accepted in the place of the one that was asked for; 0: none.';
COMMENT ON COLUMN payment_attempts.foreign_returned IS 'The part of foreign_amount that a person has given back.';

GRANT UPDATE (accepted, foreign_returned) ON payment_attempts TO tallystick_serving;

-- The payments that a person may have to look at; few are in these states at once.
CREATE INDEX payments_for_persons ON payments (state, id) WHERE state IN ('unknown', 'mismatched');
CREATE INDEX payment_refunds_unknown ON payment_refunds (id) WHERE state = 'unknown';
