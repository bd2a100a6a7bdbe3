"""Webhooks of the provider of links: they name a payment by its number, and say `finished` or another word."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.payments.notices import MAX_ACTOR, take
from core.payments.orders.orders import Status, find_order, status_of
from core.payments.payments import find, timeline
from core.providers import links

if TYPE_CHECKING:
    from core.payments.flow import Payments


class Told(NamedTuple):
    """The status of the payment after a webhook, and whether it was this one that has brought it there."""

    status: Status
    changed: bool


async def take_webhook(payments: Payments, number: int, word: str, event_id: str) -> Told | None:
    """Apply a webhook, known here by `event_id`; return None where it is about no payment of the provider of links.

    The attempt is found by the order, so that a webhook counts that comes before the answer to our own call. Raises
    Unavailable when nothing has happened.
    """
    order = await find_order(payments.database, number, None)
    if order is None:
        return None
    payment = await find(payments.database, order.payment_id)
    names = [str(one.id) for one in payment.attempts if one.provider == links.NAME]
    notice = links.notice_of(number, word)._replace(names=names)
    after = await take(payments, links.NAME, event_id, notice)
    if after is None:
        return None
    actor = f"event:{event_id}"[:MAX_ACTOR]
    steps = await timeline(payments.database, payment.id)
    changed = any(step.actor == actor and step.data.get("before") != step.data.get("after") for step in steps)
    return Told(status_of(after.state), changed)
