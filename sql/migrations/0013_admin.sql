-- Administration: lists that an operator reads, and an endpoint that an operator has switched off.

ALTER TABLE webhook_endpoints
DROP CONSTRAINT webhook_endpoints_disabled_reason_check,
ADD CONSTRAINT webhook_endpoints_disabled_reason_check CHECK (
    disabled_reason IN ('by_owner', 'by_admin', 'gone', 'failing', 'unverified')
);

-- Who has applied, who was suspended.
CREATE INDEX users_merchant_status ON users (merchant_status, id) WHERE merchant_status <> 'none';
-- What one administrator, service or user did.
CREATE INDEX audit_events_actor ON audit_events (actor, id);
