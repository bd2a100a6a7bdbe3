"""Notices: from an event of a provider, as its file has read it, to what is applied to which payment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.payments.payments import find_by_name
from core.payments.rules import Dispute
from core.payments.states import Seen
from core.payments.writing import Report

if TYPE_CHECKING:
    from core.payments.flow import Payments
    from core.payments.payments import Payment
    from core.providers.protocol import Notice

MAX_ACTOR: Final = 128


async def take(payments: Payments, provider: str, event_id: str, notice: Notice) -> Payment | None:
    """Apply a notice; return the payment that it is about, None where no attempt has one of its names.

    A notice that comes again changes nothing. Raises Unavailable when it has not happened.
    """
    found = await find_by_name(payments.database, provider, notice.names)
    if found is None:
        return None
    actor = f"event:{event_id}"[:MAX_ACTOR]
    if notice.renewal is not None:
        return await payments.renew(*found, notice.renewal, notice.sight, actor)
    payment = None
    for report in reports_of(notice, event_id, actor):
        payment = (await payments.applier.apply(*found, report)).payment
    return payment


def reports_of(notice: Notice, event_id: str, actor: str) -> list[Report]:
    """Return what a notice tells, in its order.

    An event about a refund or a dispute often has no amount of the payment itself. It then makes nobody believe that
    the payment was paid as asked for: the provider is asked, which also tells what was refunded in all.
    """
    sight = notice.sight
    beside = notice.refund is not None or notice.dispute is not None
    unclear = beside and sight.amount is None
    reports = [Report(Seen.UNKNOWN, actor, soon=True) if unclear else Report(sight, actor)]
    if notice.dispute:
        reports.append(
            Report(Dispute(sight.names.get("dispute") or event_id, notice.dispute), actor, soon=beside)
        )
    return reports
