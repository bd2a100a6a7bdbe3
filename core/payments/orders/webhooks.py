"""Webhooks of the provider of links: they name a payment by its number, and say `finished` or another word."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from core.inbox.intake import NewEvent
from core.payments.notices import MAX_ACTOR, take
from core.payments.orders.orders import Status, status_of
from core.payments.payments import timeline
from core.providers import links

if TYPE_CHECKING:
    from core.inbox.intake import Intake
    from core.payments.flow import Payments


class Heard(NamedTuple):
    """The status of the payment after a webhook, and whether it was this one that has brought it there."""

    status: Status
    changed: bool


def event_of(number: int, word: str) -> NewEvent:
    """Return a webhook as the inbox keeps it. One that says the same of the same payment is the same event."""
    digest = hashlib.sha256(word.encode()).hexdigest()
    kind = "payment.finished" if word == links.FINISHED else "payment.failed"
    body = links.event_body(number, word)
    return NewEvent(links.NAME, f"{number}:{digest[:32]}", kind, str(number), None, {}, body)


async def take_webhook(payments: Payments, intake: Intake, number: int, word: str) -> Heard | None:
    """Store a webhook and apply it at once; return None where it is about no payment of the provider of links.

    A worker may have applied it first; it counts for the request that has brought the event all the same. Should this
    process end before it has applied what it stored, a worker does. Raises Unavailable, and Refusal `overloaded`.
    """
    event = event_of(number, word)
    is_new = await intake.receive(event)
    notice = links.read_event(event.event_type, event.body)
    after = await take(payments, links.NAME, event.event_id, notice)
    if after is None:
        return None
    actor = f"event:{event.event_id}"[:MAX_ACTOR]
    steps = await timeline(payments.database, after.id)
    moved = any(step.actor == actor and step.data.get("before") != step.data.get("after") for step in steps)
    return Heard(status_of(after.state), is_new and moved)
