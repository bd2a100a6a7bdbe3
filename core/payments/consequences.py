"""Consequences: a surface's rows that follow from a payment's new state, written by the transaction that changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.payments.orders.orders import SURFACE as ORDERS
from core.payments.orders.tokens import keep_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.database import Connection
    from core.payments.payments import Payment

# By the surface: called with the payment as it is then, under its lock. It may lock rows of its surface alone.
OF_SURFACES: Final[Mapping[str, Callable[[Connection, Payment], Awaitable[None]]]] = {ORDERS: keep_token}


async def follow(connection: Connection, before: Payment, after: Payment) -> None:
    """Write what follows from the way from `before` to `after`."""
    consequence = OF_SURFACES.get(after.surface)
    if consequence is not None and after.state is not before.state:
        await consequence(connection, after)
