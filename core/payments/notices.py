"""Notices: from an event of a provider, as its file has read it, to what is applied to which payment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core.inbox.rules import Target
from core.payments.observing import note
from core.payments.payments import find_by_name, find_with_owners
from core.payments.rules import Dispute
from core.payments.states import Seen
from core.payments.writing import Report
from core.providers.known import EVENT_READERS
from core.providers.protocol import Notice, Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from core.database import Connection
    from core.inbox.rules import Owners, Told
    from core.payments.applying import Applied
    from core.payments.flow import Payments
    from core.payments.payments import Payment

MAX_ACTOR: Final = 128


class Notices:
    """The engine as the inbox needs it (`core.inbox.transitions.Engine`)."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    def read(self, provider: str, event_type: str, body: bytes) -> Notice | None:
        """Read an event, None if it is about no payment. Raises ValueError for one that makes no sense.

        The payments of a provider that is not set up any more are still told of; but where it never was, its events may
        be anything.
        """
        known = self._payments.providers.get(provider)
        read = known.read if known is not None else EVENT_READERS.get(provider)
        try:
            return None if read is None else read(event_type, body)
        except ValueError:
            if known is None:
                return None
            raise

    async def known(
        self, wanted: Sequence[tuple[str, Sequence[str]]], accounts: Sequence[str]
    ) -> tuple[list[Target | None], Owners]:
        """Return the targets of providers with names, None where no attempt has one, and the accounts' owners."""
        found, owners = await find_with_owners(self._payments.database, wanted, accounts)
        return [None if one is None else Target(*one) for one in found], owners

    async def apply(
        self,
        target: Target,
        event_id: str,
        told: Told,
        finish: Callable[[Connection, bool], Awaitable[None]],
    ) -> bool:
        """Apply an event in one transaction, whose last statement is `finish`, with whether anything has changed.

        Returns whether events of our own were written. Raises Refusal, Unavailable, and what `finish` raises.
        """
        if not isinstance(told, Notice):
            raise TypeError(f"{type(told).__name__} is no notice")

        async def work(connection: Connection) -> _Taken:
            taken = await _within(self._payments, connection, target, event_id, told)
            await finish(connection, taken.changed)
            return taken

        taken = await self._payments.applier.opening(work)
        _tell(self._payments, taken)
        return taken.wakes


async def take(payments: Payments, provider: str, event_id: str, notice: Notice) -> Payment | None:
    """Apply a notice; return the payment that it is about, None where no attempt has one of its names.

    A notice that comes again changes nothing. Raises Unavailable when it has not happened.
    """
    found = await find_by_name(payments.database, provider, notice.names)
    return None if found is None else await take_at(payments, Target(*found), event_id, notice)


async def take_at(payments: Payments, target: Target, event_id: str, notice: Notice) -> Payment:
    """Apply a notice to an attempt; return the payment. Raises Unavailable when it has not happened."""
    taken = await payments.applier.opening(
        lambda connection: _within(payments, connection, target, event_id, notice)
    )
    _tell(payments, taken)
    return taken.applied[-1].payment


class _Taken(NamedTuple):
    """The steps of a notice, whether it has changed or started something, and whether events of ours were written."""

    applied: Sequence[Applied]
    changed: bool
    wakes: bool


def _tell(payments: Payments, taken: _Taken) -> None:
    """Count what was committed, and wake those who send."""
    for applied in taken.applied:
        note(applied)
    if taken.wakes:
        payments.applier.wake()


async def _within(
    payments: Payments, connection: Connection, target: Target, event_id: str, notice: Notice
) -> _Taken:
    """Apply a notice in the transaction of `connection`."""
    actor = f"event:{event_id}"[:MAX_ACTOR]
    if notice.renewal is not None:
        applied, wakes = await payments.renew_within(connection, *target, notice.renewal, notice.sight, actor)
        return _Taken([applied], applied.changed, wakes)
    reports = reports_of(notice, event_id, actor)
    done = [await payments.applier.within(connection, *target, report) for report in reports]
    changed = any(applied.changed for applied, _ in done) or any(report.soon for report in reports)
    return _Taken([applied for applied, _ in done], changed, any(told for _, told in done))


def reports_of(notice: Notice, event_id: str, actor: str) -> list[Report]:
    """Return what a notice tells, in its order.

    An event about a refund or a dispute often has no amount of the payment itself. It then makes nobody believe that
    the payment was paid as asked for: the provider is asked, which also tells what was refunded in all. It is asked
    as well after an event about an open payment, such as a payer's approval, at which it may take the money.
    """
    sight = notice.sight
    beside = notice.refund is not None or notice.dispute is not None
    unclear = beside and sight.amount is None
    reports = [
        Report(Seen.UNKNOWN, actor, soon=True)
        if unclear
        else Report(sight, actor, soon=sight.standing is Standing.OPEN)
    ]
    if notice.dispute:
        name = sight.names.get("dispute") or event_id
        disputed = Dispute(name, notice.dispute, notice.dispute_currency)
        reports.append(Report(disputed, actor, soon=beside))
    return reports
