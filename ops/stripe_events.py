"""Events as Stripe sends them, for the demo, the load tests and the tests, which play Stripe."""

import hashlib
import hmac
import time
from typing import Any


def payment_intent_succeeded(
    account: str, *, event_id: str, intent: str, amount: int = 1500, currency: str = "usd"
) -> dict[str, Any]:
    """Return an event of Stripe's form, with the fields that we read, for `account`; `amount` in minor units."""
    paid = {
        "id": intent,
        "object": "payment_intent",
        "amount": amount,
        "amount_received": amount,
        "currency": currency,
        "status": "succeeded",
        "metadata": {"account": account},
    }
    return {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "type": "payment_intent.succeeded",
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {"object": paid},
    }


def stripe_signature(body: bytes, secret: str, timestamp: int) -> str:
    """Return the header Stripe-Signature, scheme v1: HMAC-SHA256 over the time, a dot and the body.

    https://docs.stripe.com/webhooks#verify-manually
    """
    digest = hmac.digest(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hex()
    return f"t={timestamp},v1={digest}"
