"""Onward: what a surface does with the money of a payment at the moment in which it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.database import Connection
    from core.ledger.items import Outcome, Posting
    from core.payments.payments import Payment


class Onward(Protocol):
    """The surface's part of the transaction that makes a payment paid. The payment is locked.

    Its posting goes into the same call of the ledger as the one that collects the money, so that all locks are taken in
    the global order. Nothing that it raises may be expected: it would keep the payment from being paid.
    """

    async def posting(self, connection: Connection, payment: Payment) -> Posting | None:
        """Return what moves the money on, None where it cannot go on."""

    async def settle(self, connection: Connection, payment: Payment, outcome: Outcome | None) -> None:
        """Write what follows from the outcome of that posting; None where there was none."""
