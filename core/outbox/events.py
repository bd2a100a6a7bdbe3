"""The one writer of outgoing events: an event is written by the transaction that makes the effect it tells of.

The module `core.wallets.notifications` decides whom a user's event goes to; this one knows principals only.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from core import ids, tracing
from core.database import queries
from core.errors import Refusal
from core.ledger.items import Told, TracedTold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from core.database import Connection

_sql = queries(__name__)

# Standard Webhooks' characters for a type; the length is ours.
EVENT_TYPE_PATTERN: Final = r"[a-zA-Z0-9_]+(?:\.[a-zA-Z0-9_]+)*"
_EVENT_TYPE = re.compile(EVENT_TYPE_PATTERN)
MAX_EVENT_TYPE: Final = 100
# Receivers are told to expect small bodies: a large object is fetched by its id.
MAX_BODY_BYTES: Final = 20 * 1024

# Every type that an endpoint can ask for. `tests/core/outbox/test_event_types.py` holds that no other one is told, and
# that docs/webhooks.md tells of each.
KNOWN_TYPES: Final = frozenset(
    {
        "cash.accept", "cash.cancel", "cash.expire", "cash.reject", "cash.request", "internal.transfer",
        "invoices.autopay_notice", "invoices.cancel", "invoices.create", "invoices.expire", "invoices.mandate_revoke",
        "invoices.mandate_upsert", "invoices.pay", "kyc.approve", "kyc.review", "kyc.submit", "links.create",
        "links.expire", "links.pay", "merchant_keys.create", "merchant_keys.delete", "merchants.set",
        "payment.canceled", "payment.disputed", "payment.expired", "payment.failed", "payment.mismatched",
        "payment.paid", "payment.refunded", "payment.succeeded", "payments.cpm_request", "payments.qr_create",
        "payments.qr_expire", "payments.qr_pay",
        "refunds.create", "requests.accept", "requests.cancel", "requests.create", "requests.expire",
        "requests.reject", "settlement.report", "subscriptions.cancel", "subscriptions.charge",
        "subscriptions.charge_failed", "subscriptions.create", "subscriptions.missed", "vouchers.create",
        "vouchers.expire", "vouchers.redeem", "vouchers.revoke", "wallet.airdrop", "wallet.freeze", "wallet.transfer",
        "wallet.unfreeze", "webhook.test", "webhook_endpoint.disabled",
    }
)  # fmt: skip
NEAREST: Final = 3

# `json.dumps` makes such an encoder for each call, at more than the encoding itself costs.
_NO_EXTRAS: Final = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_in_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(event_type: str, data: Mapping[str, Any]) -> bytes:
    """Return the body of an event, as the wallet service's receivers read it: `{"type","data"}`, compact, in ASCII."""
    event = {"type": event_type, "data": data}
    try:
        # These are the same bytes for everything that is ASCII, in a fifth of the time.
        body = orjson.dumps(event, option=_NO_EXTRAS)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, for one
        body = b"\xff"
    # DEL is the one character of ASCII that the standard library escapes beside the usual ones.
    return body if body.isascii() and b"\x7f" not in body else _in_ascii(event).encode("ascii")


def check_patterns(patterns: Iterable[str], *, field: str) -> None:
    """Raise Refusal `invalid_request` for a type or a pattern that no event will ever have; it names the nearest."""
    for pattern in patterns:
        beginning = pattern.removesuffix("*")
        known = any(one.startswith(beginning) for one in KNOWN_TYPES) if beginning != pattern else False
        if not known and pattern not in KNOWN_TYPES:
            groups = {f"{one.split('.')[0]}.*" for one in KNOWN_TYPES}
            nearest = difflib.get_close_matches(
                pattern.lower(), sorted(KNOWN_TYPES | groups), NEAREST, cutoff=0.0
            )
            raise Refusal(
                "invalid_request",
                f"No event has the type {pattern}. The nearest are {', '.join(nearest)}.",
                field=field,
            )


def new_event(
    principal_id: int, event_type: str, data: Mapping[str, Any], *, object_id: str | None = None
) -> Told:
    """Return an event of a principal, to be written by `write_events` or by the posting that it is about.

    No other function makes a Told, so every event has passed this check. `object_id` names the object that the event
    is about; its story is found by it. Raises Refusal `event_too_large` above MAX_BODY_BYTES, and ValueError for a type
    that no receiver could subscribe to.
    """
    if _EVENT_TYPE.fullmatch(event_type) is None or len(event_type) > MAX_EVENT_TYPE:
        raise ValueError(f"not an event type: {event_type!r}")
    body = encode(event_type, data)
    if len(body) > MAX_BODY_BYTES:
        raise Refusal("event_too_large", f"An event of {len(body)} bytes is longer than {MAX_BODY_BYTES}.")
    if tracing.active is None:
        return Told(principal_id, event_type, object_id, body)
    told = TracedTold(principal_id, event_type, object_id, body)
    told.traceparent = tracing.active.current()
    return told


async def write_events(
    connection: Connection, events: Sequence[Told], *, for_one_endpoint: bool = False
) -> list[UUID]:
    """Write events in the caller's transaction and return their ids (UUID version 7), in their order.

    After the commit each goes to those endpoints of its principal that want its type; wake
    `core.work.wakeup.OUTBOX` then. An event `for_one_endpoint` has no fan-out and no position: the caller makes its
    deliveries.
    """
    if not events:
        return []
    event_ids = [ids.new_uuid() for _ in events]
    if tracing.active is not None:
        for event_id, event in zip(event_ids, events, strict=True):
            tracing.active.note(event_id, getattr(event, "traceparent", None))
        await tracing.active.keep_noted()
    columns = zip(*events, strict=True)
    await connection.execute(_sql.write_events, event_ids, *map(list, columns), for_one_endpoint)
    return event_ids
