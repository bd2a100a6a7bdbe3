-- The reason why an event that came in has no effect: a code and a sentence, as `ignored` alone says nothing.
ALTER TABLE inbox_events ADD COLUMN reason text CHECK (char_length(reason) <= 500);
GRANT UPDATE (reason) ON inbox_events TO tallystick_serving;

-- Receivers of the wallet contract know its four types and no others. Endpoints that users made without a choice have
-- got all types so far.
UPDATE webhook_endpoints SET event_types = '{payments.qr_pay,refunds.create,requests.accept,webhook.test}'
WHERE event_types = '{}' AND principal_id IN (SELECT users.principal_id FROM users);
