"""Stripe's events: the check of the signature over the raw bytes, and the fields that are needed to store the event.

(https://docs.stripe.com/webhooks#verify-manually, https://docs.stripe.com/api/events/object)

Stripe's own library is not used here: it takes one secret, accepts timestamps of any age to come, and raises TypeError
on a header that is not ASCII. `tests/core/inbox/test_stripe.py` holds the two together on honest headers.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from core.inbox.intake import NewEvent
from core.inbox.verifying import NotGenuine, identified, kept, moment_in, object_named, read_object
from core.rotation import uses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROVIDER: Final = "stripe"
HEADER: Final = "stripe-signature"

# A header with eight v1 and as many of other schemes has about 1,200 characters.
MAX_HEADER_LENGTH: Final = 2048
# During a rotation Stripe sends one v1 for each live secret; nobody rolls eight at a time.
MAX_SIGNATURES: Final = 8

_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
# A header with one time and one v1, which is read in a fifth of the time.
_USUAL = re.compile(rf"t=({_TIMESTAMP.pattern}),v1=({_SIGNATURE.pattern})")


class Genuine(NamedTuple):
    """The body was signed with our secret number `secret_index` at `timestamp` (Unix seconds)."""

    timestamp: int
    secret_index: int


class Refused(NamedTuple):
    """The signature does not hold. `reason` is a stable word for logs and metrics; the sender is not told it."""

    reason: str


Verdict: TypeAlias = "Genuine | Refused"


def verify(
    body: bytes, header: str, *, secrets: Sequence[str], tolerance_seconds: int, now: float
) -> Verdict:
    """Check `header` (the value of Stripe-Signature) against the raw `body`.

    Every secret is tried with every v1, other schemes are ignored, and the signed time may be at most
    `tolerance_seconds` away from `now` (Unix seconds) on either side, the boundary included; nothing switches that
    check off. The key is the whole secret with its `whsec_`. Without any secret every event is refused.
    """
    if not header:
        return Refused("header_missing")
    if len(header) > MAX_HEADER_LENGTH:
        return Refused("header_too_long")
    parsed = _parse(header)
    if parsed is None:
        return Refused("header_malformed")
    timestamp, signatures = parsed
    # The time is checked before the HMAC, which costs a thousand times as much; the order tells no secret.
    if abs(int(now) - timestamp) > tolerance_seconds:
        return Refused("timestamp_outside_tolerance")
    signed = b"%d." % timestamp + body
    for index, secret in enumerate(secrets):
        if not secret:
            continue
        expected = hmac.digest(secret.encode(), signed, "sha256")
        for signature in signatures:
            if hmac.compare_digest(expected, signature):
                return Genuine(timestamp, index)
    return Refused("signature_mismatch")


def _parse(header: str) -> tuple[int, list[bytes]] | None:
    """Return the signed time and every v1 as bytes; None when the header says nothing definite.

    Elements of other schemes, and those that do not parse, are ignored: Stripe may add a scheme, and sends `v0` with
    its test events.
    """
    usual = _USUAL.fullmatch(header)
    if usual is not None:
        return int(usual[1]), [bytes.fromhex(usual[2])]
    times: set[str] = set()
    signatures: list[bytes] = []
    for element in header.split(","):
        # Proxies that fold headers put blanks after the commas.
        scheme, _, value = element.strip(" \t").partition("=")
        # The text that was signed is the text of the header: `007` would be another signature than `7`.
        if scheme == "t" and _TIMESTAMP.fullmatch(value) is not None:
            times.add(value)
        elif scheme == "v1" and _SIGNATURE.fullmatch(value) is not None:
            signatures.append(bytes.fromhex(value))
    # A header that was sent twice and joined by a proxy repeats one `t`; two different ones are a forgery.
    if len(times) != 1 or not 1 <= len(signatures) <= MAX_SIGNATURES:
        return None
    return int(times.pop()), signatures


class StripeVerifier:
    """Stripe's `core.inbox.verifying.Verifier`."""

    provider = PROVIDER

    def __init__(self, secrets: Sequence[str], tolerance_seconds: int) -> None:
        self._secrets = secrets
        self._tolerance_seconds = tolerance_seconds

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Check the signature first, and only then read the bytes."""
        header = headers.get(HEADER, "")
        verdict = verify(
            body, header, secrets=self._secrets, tolerance_seconds=self._tolerance_seconds, now=now
        )
        if isinstance(verdict, Refused):
            raise NotGenuine(verdict.reason)
        uses.used(uses.STRIPE, verdict.secret_index)
        return read_event(body, header)


def read_event(body: bytes, header: str) -> NewEvent:
    """Return a verified event as the inbox stores it: a snapshot event, or a thin one of the API v2.

    Raises Refusal `malformed_json` with the contract's sentence for a body that names no event, and `invalid_request`
    when the id or the type is empty.
    """
    event = read_object(body)
    event_id, event_type = identified(event.get("id"), event.get("type"))
    return NewEvent(
        provider=PROVIDER,
        event_id=event_id,
        event_type=event_type,
        object_id=_object_id(event),
        occurred_at=moment_in(event.get("created")),
        headers=kept({HEADER: header}, (HEADER,)),
        body=body,
    )


def _object_id(event: dict[str, Any]) -> str | None:
    """Return the id of the object: a snapshot event has it in `data`, a thin one as `related_object`."""
    data = event.get("data")
    found = data.get("object") if isinstance(data, dict) else event.get("related_object")
    return object_named(found.get("id")) if isinstance(found, dict) else None
