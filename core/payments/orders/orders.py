"""Orders as they are stored, found and listed. How an order stands is the state of its payment."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from core.database import queries
from core.payments.states import CLOSED_STATES, State

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database, Row

_sql = queries(__name__)

SURFACE: Final = "orders"
"""The surface of the payments of orders."""
MOST_NUMBER: Final = 2**63 - 1
# Codes of calls that nobody has answered.
_UNREACHABLE: Final = frozenset({"provider_unreachable", "provider_not_configured", "given_up"})


class Status(IntEnum):
    """The statuses of the contract. A payment whose end nobody knows is pending."""

    PAYMENT_PENDING = 1
    PAYMENT_FINISHED = 2
    PAYMENT_FAILED = 3


def status_of(state: State) -> Status:
    """Return the status of a payment. Money that is not what was asked for has finished nothing yet."""
    if state is State.PAID:
        return Status.PAYMENT_FINISHED
    return Status.PAYMENT_FAILED if state in CLOSED_STATES else Status.PAYMENT_PENDING


def was_unreachable(error: str | None) -> bool:
    """Whether a call that has failed with this code and sentence met nobody; else a provider has refused."""
    return (error or "").partition(":")[0] in _UNREACHABLE


class Order(NamedTuple):
    """An order: `number` is the contract's payment_id; amounts are in units of 10 ** -`scale`."""

    number: int
    payment_id: UUID
    merchant_id: int
    order_id: int
    alias: str
    amount: int
    price: int
    scale: int
    created_at: datetime
    state: State

    @property
    def status(self) -> Status:
        """The contract's status."""
        return status_of(self.state)


class Page(NamedTuple):
    """One page of a merchant's orders, the newest first, and how many there are in all."""

    orders: list[Order]
    total: int


async def find_order(source: Connection | Database, number: int, merchant_id: int | None) -> Order | None:
    """Return the order of a number, None where there is none of this merchant. Without a merchant anyone's counts."""
    row = await source.fetchrow(_sql.order_by_number, number, merchant_id)
    return None if row is None else _order(row)


async def order_of_payment(source: Connection | Database, payment_id: UUID) -> Order | None:
    """Return the order of a payment."""
    row = await source.fetchrow(_sql.order_by_payment, payment_id)
    return None if row is None else _order(row)


async def list_orders(database: Database, merchant_id: int, page: int, limit: int) -> Page:
    """Return the page of that number, from 1, with up to `limit` orders."""
    rows = await database.fetch(_sql.list_orders, merchant_id, limit, (page - 1) * limit)
    total = rows[0]["total"] if rows else 0
    return Page([_order(row) for row in rows if row["number"] is not None], total)


def _order(row: Row) -> Order:
    values = {name: row[name] for name in Order._fields}
    return Order(**values | {"state": State(row["state"])})
