"""What one user wants from another: payment requests and invoices. Their reads, and the ends that are no payment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from core.audit import audited, by_user
from core.database import queries
from core.payables import payables
from core.payables.payables import Payable, payable_of
from core.wallets.notifications import tell_all, write

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.payables.payables import NewPayable, RequestKey, State
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

DemandKind = Literal["request", "invoice"]
# Of each of the two lists of a user, by the contract.
LISTED: Final = 100


class Demand(NamedTuple):
    """A request or an invoice, and the phones of who is paid and who pays."""

    payable: Payable
    payee_phone: str
    payer_phone: str


class Demands(NamedTuple):
    """Those that a user is to pay, and those that a user is paid for, newest first."""

    incoming: list[Demand]
    outgoing: list[Demand]


async def find(source: Connection | Database, kind: DemandKind, demand_id: UUID) -> Demand | None:
    """Return a request or an invoice."""
    row = await source.fetchrow(_sql.find_demand, demand_id, kind)
    return None if row is None else _demand(row)


async def of_user(platform: Platform, kind: DemandKind, user: User) -> Demands:
    """Return the newest 100 of each side."""
    incoming = await platform.database.fetch(_sql.demands_on, user.id, kind, LISTED)
    outgoing = await platform.database.fetch(_sql.demands_of, user.id, kind, LISTED)
    return Demands([_demand(row) for row in incoming], [_demand(row) for row in outgoing])


async def create(
    platform: Platform,
    new: NewPayable,
    payee: User,
    payer: User,
    event: str,
    *,
    key: RequestKey | None = None,
) -> Demand:
    """Store a request or an invoice, tell both sides of it, and return it; under a used key the one that it made.

    Raises Refusal `idempotency_conflict`.
    """
    told = False
    async with platform.database.transaction() as connection:
        demand_id, made = await payables.create(connection, new, key=key)
        if made:
            data = {"id": str(demand_id), "amount_cents": new.amount}
            entry = audited(event, by_user(payee.id), data, user_id=payer.id, object_id=str(demand_id))
            events = tell_all((payee, payer), event, data, object_id=str(demand_id))
            told = await write(connection, events, [entry])
        kind: DemandKind = "invoice" if new.kind == "invoice" else "request"
        demand = await find(connection, kind, demand_id)
    if demand is None:
        raise LookupError(f"{demand_id} is not there though it was just stored")
    if told:
        platform.wake()
    return demand


async def end(
    platform: Platform, demand: Demand, state: Literal["canceled", "rejected"], by: User, event: str
) -> State | None:
    """End an open demand and tell both sides; None when that was done, else the state that it was in already."""
    payable = demand.payable
    data = {"id": str(payable.id)}
    users = await platform.users.by_ids(side for side in (payable.payee_id, payable.payer_id) if side)
    told = False
    async with platform.database.transaction() as connection:
        ended = await payables.end(connection, payable.id, state, by=by.id)
        if ended:
            other = next((user_id for user_id in users if user_id != by.id), by.id)
            entry = audited(event, by_user(by.id), data, user_id=other, object_id=data["id"])
            events = tell_all(users.values(), event, data, object_id=data["id"])
            told = await write(connection, events, [entry])
    if not ended:
        now = await platform.payables.by_id(payable.id)
        return payable.state if now is None else now.state
    if told:
        platform.wake()
    return None


def _demand(row: Row) -> Demand:
    return Demand(payable_of(row), row["payee_phone"], row["payer_phone"])
