"""Witnesses: a surface whose contract has a log of its own hears of the end of each call, in its transaction.

The timeline has a line for each change alone. A log that its readers know has a line for each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.payments.kaspi import log as kaspi
from core.payments.kaspi.words import SURFACE as KASPI

if TYPE_CHECKING:
    from core.database import Connection
    from core.payments.payments import Attempt, Payment
    from core.payments.writing import Report


async def applied(connection: Connection, before: Attempt, payment: Payment, report: Report) -> None:
    """Tell that a report about an attempt, which was as `before`, was applied; the payment is as it is since."""
    if payment.surface == KASPI:
        await kaspi.applied(connection, before, payment, report.seen, report.error, report.actor)


async def refunded(
    connection: Connection, payment: Payment, attempt: Attempt, amount: int, state: str, error: str | None
) -> None:
    """Tell that a refund of an attempt is in this state since its call has ended."""
    if payment.surface == KASPI:
        await kaspi.refunded(connection, payment, attempt, amount, state, error)
