"""The timeline of an order as its merchant reads it, in the old service's words, made of the engine's own timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from core.outbox.callbacks import DISPATCHED
from core.payments.orders.amounts import text_of
from core.payments.orders.orders import Order, Status, status_of, was_unreachable
from core.payments.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from core.outbox.callbacks import Dispatch
    from core.payments.payments import Payment, Step

CREATED: Final = "EVENT_PAYMENT_CREATED"
REQUEST_SENT: Final = "EVENT_PROVIDER_REQUEST_SENT"
ACCEPTED: Final = "EVENT_PROVIDER_PAYMENT_ACCEPTED"
NOTIFIED: Final = "EVENT_MERCHANT_NOTIFICATION_SENT"

_WAITING: Final = "Payment is pending and waiting for customer action."
# Ends of the call that asks for the link, by the kind of the step; a look may find the link later.
_ENDS: Final = {
    "open": _WAITING,
    "processing": _WAITING,
    "declined": "Provider URL generation failed",
    "unsent": "Provider URL generation failed",
    "unknown": "Provider gave no answer",
}
_BEFORE_THE_LINK: Final = frozenset({State.CREATED, State.UNKNOWN})
# The contract's words for an end, where the provider has none of its own.
_WORDS: Final = {Status.PAYMENT_FINISHED: "finished", Status.PAYMENT_FAILED: "failed"}


class Event(NamedTuple):
    """One event of the contract's timeline. `payload` is JSON in a text."""

    event_type: str
    message: str | None
    payload: str | None
    at: datetime


def notification_of(order: Order, status: Status) -> bytes:
    """Return the body of the notification that an order has this status."""
    return msgspec.json.encode(
        {
            "payment_id": order.number,
            "order_id": order.order_id,
            "merchant_id": order.merchant_id,
            "status": int(status),
            "amount": text_of(order.amount, order.scale),
            "price": text_of(order.price, order.scale),
        }
    )


def events_of(
    order: Order, payment: Payment, steps: Sequence[Step], dispatches: Sequence[Dispatch] = ()
) -> list[Event]:
    """Return the events of an order, the oldest first."""
    created = order.created_at
    events = [
        Event(CREATED, f"[{created.isoformat()}] Payment created", None, created),
        _request_sent(order, payment, steps),
    ]
    status = Status.PAYMENT_PENDING
    for step in steps:
        now = status_of(State(step.state))
        if now is not status and now is not Status.PAYMENT_PENDING:
            if step.kind not in {"declined", "unsent"}:
                events.append(_accepted(order, step, now))
            events.append(_notified(order, step, now, dispatches))
        status = now
    return events


def _request_sent(order: Order, payment: Payment, steps: Sequence[Step]) -> Event:
    # The attempt is stored some milliseconds before the order, in one transaction.
    sent = max(payment.attempts[0].created_at, order.created_at)
    lines = [f"[{sent.isoformat()}] Provider URL request sent"]
    payload: dict[str, Any] = {"provider": order.alias}
    for step in steps:
        text = _ENDS.get(step.kind)
        if step.kind == "unsent" and was_unreachable(step.data.get("error")):
            text = "Provider unreachable"
        if text is not None and step.data.get("before") in _BEFORE_THE_LINK:
            lines.append(f"[{step.recorded_at.isoformat()}] {text}")
    if url := payment.current.url:
        payload["payment_url"] = url
    return Event(REQUEST_SENT, "\n".join(lines), _json(payload), sent)


def _accepted(order: Order, step: Step, status: Status) -> Event:
    told = "Provider webhook processed" if step.actor.startswith("event:") else "Provider answer processed"
    word = step.data.get("word") or _WORDS[status]
    return Event(ACCEPTED, told, _json({"payment_id": order.number, "status": word}), step.recorded_at)


def _notified(order: Order, step: Step, status: Status, dispatches: Sequence[Dispatch]) -> Event:
    body = notification_of(order, status)
    own = [one for one in dispatches if one.body == body]
    lines: list[str] = []
    for place, one in enumerate(own):
        at = f"[{one.at:%Y-%m-%d %H:%M:%S}]"
        lines.append(f"{at} published")
        next_at = one.next_at if place + 1 == len(own) else own[place + 1].at
        if one.kind == DISPATCHED:
            lines.append(f"{at} success status={one.status}")
        elif next_at is not None:
            lines.append(f"{at} retry retries={one.number} next_retry_at={next_at.isoformat()}")
        else:
            lines.append(f"{at} failed retries={one.number} status={one.status or 'none'}")
    return Event(NOTIFIED, "\n".join(lines) or None, body.decode(), step.recorded_at)


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
