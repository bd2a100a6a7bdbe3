"""What a merchant's server checks of a delivery: both signatures, written from their public descriptions.

It shares no code with what signs, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Standard Webhooks: a delivery that is older or younger than this is refused by its receiver.
TOLERANCE_SECONDS = 300


def problem_of(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return what is wrong with a delivery, or an empty text. `headers` ignore the case of names."""
    return standard_problem(secret, headers, body) or wallet_problem(secret, headers, body)


def standard_problem(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Check `webhook-signature` as https://www.standardwebhooks.com describes it."""
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(int(timestamp) - time.time()) > TOLERANCE_SECONDS:
        return "webhook-timestamp is not of now"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id')}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    given = headers.get("webhook-signature", "").encode().split()
    right = any(hmac.compare_digest(expected, signature) for signature in given)
    return "" if right else "webhook-signature is wrong"


def wallet_problem(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Check X-Webhook-Sign: the HMAC of timestamp, event type and body with the secret as it is shown."""
    signed = f"{headers.get('X-Webhook-Ts')}{headers.get('X-Webhook-Event')}".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    right = hmac.compare_digest(expected.encode(), headers.get("X-Webhook-Sign", "").encode())
    return "" if right else "X-Webhook-Sign is wrong"
