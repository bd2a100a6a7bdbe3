"""Demands, which are payment requests and invoices: their storage, their reads, and the ends that are no payment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import UUID

from core import metrics
from core.audit import by_user
from core.database import queries
from core.errors import Refusal
from core.payables import payables
from core.payables.payables import Payable, payable_of
from core.wallets.notifications import announce
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from core.database import Connection, Database, Row
    from core.payables.payables import NewPayable, RequestKey, State, Stored
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

DemandKind = Literal["request", "invoice"]
# The contract's length of each of the two lists of a user.
LISTED: Final = 100


class Demand(NamedTuple):
    """A request or an invoice, with the phones of its payee and its payer.

    From `autopay_at` on a mandate pays the invoice, of which the payer has had notice.
    """

    payable: Payable
    payee_phone: str
    payer_phone: str
    autopay_at: datetime | None = None


class Wanted(NamedTuple):
    """The part of a user's demands that is wanted; None: any.

    `side` is one of the two lists, `phone` that of the other side, `before` the last id of the part before.
    """

    side: Literal["incoming", "outgoing"] | None = None
    state: str | None = None
    phone: str | None = None
    reference: str | None = None
    before: UUID | None = None
    limit: int = LISTED


class Demands(NamedTuple):
    """The demands that a user is to pay, and those of which the user is the payee; newest first."""

    incoming: list[Demand]
    outgoing: list[Demand]


async def find(source: Connection | Database, kind: DemandKind, demand_id: UUID) -> Demand | None:
    """Return a request or an invoice, None for an unknown id."""
    row = await source.fetchrow(_sql.find_demand, demand_id, kind)
    return None if row is None else _demand(row)


async def of_user(platform: Platform, kind: DemandKind, user: User, wanted: Wanted | None = None) -> Demands:
    """Return the newest demands of each side, 100 unless `wanted` says otherwise.

    Open demands of senders whom the user has blocked are left out.
    """
    wanted = wanted or Wanted()
    asked = (user.id, kind, wanted.limit, wanted.state, wanted.phone, wanted.reference, wanted.before)
    incoming: list[Row] = []
    outgoing: list[Row] = []
    if wanted.side != "outgoing":
        incoming = await platform.database.fetch(_sql.demands_on, *asked)
    if wanted.side != "incoming":
        outgoing = await platform.database.fetch(_sql.demands_of, *asked)
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
    """Store a request or an invoice, tell both sides, and return the demand; a used key returns its first one.

    Raises Refusal `idempotency_conflict`, `sender_blocked`, `too_many_open_items`.
    """
    stored = await store(platform, new, payee, payer, event, key=key, actor=by_user(payee.id))
    kind: DemandKind = "invoice" if new.kind == "invoice" else "request"
    demand = await find(platform.database, kind, stored.id)
    if demand is None:
        raise LookupError(f"{stored.id} is not there though it was just stored")
    # A repetition gets the first answer, so it shows the demand as it was made.
    return demand._replace(payable=demand.payable._replace(state="open"))


async def store(
    platform: Platform,
    new: NewPayable,
    payee: User,
    payer: User,
    event: str,
    *,
    key: RequestKey | None,
    actor: str,
) -> Stored:
    """Do as `create` does for an `actor` who need not be the payee; return the new row or that of a used key.

    A payee who asks is held to the bound on open demands and to the payer's block; a sibling service is not.
    """
    bounded = actor == by_user(payee.id)
    most = platform.settings.open_demands_max

    async def created(connection: Connection) -> tuple[Stored, bool]:
        stored = await payables.store(connection, new, key=key)
        if not stored.new:
            return stored, False
        if bounded:
            cause = await connection.fetchval(_sql.demand_cause, payee.id, payer.id, new.kind, most)
            if cause is not None:
                raise _forbidden(cause, most)
        data = {"id": str(stored.id), "amount_cents": new.amount}
        told = await announce(connection, event, data, (payee, payer), actor=actor, about=payer.id)
        return stored, told

    stored, told = await in_transaction(platform.database, created)
    platform.wake(told)
    if stored.new and new.kind == "request":
        metrics.PAYMENT_REQUESTS.add("create")
    return stored


async def end(
    platform: Platform, demand: Demand, state: Literal["canceled", "rejected"], by: User, event: str
) -> State | None:
    """End an open demand and tell both sides; return None, or the state of a demand that was over already."""
    payable = demand.payable
    data = {"id": str(payable.id)}
    users = await platform.users.by_ids(side for side in (payable.payee_id, payable.payer_id) if side)
    other = next((user_id for user_id in users if user_id != by.id), by.id)
    told = False
    async with platform.database.transaction() as connection:
        ended = await payables.end(connection, payable.id, state, by=by.id)
        if ended:
            told = await announce(connection, event, data, users.values(), actor=by_user(by.id), about=other)
    platform.wake(told)
    if ended:
        if payable.kind == "request":
            metrics.PAYMENT_REQUESTS.add("reject" if state == "rejected" else "cancel")
        return None
    now = await platform.payables.by_id(payable.id)
    return payable.state if now is None else now.state


def _forbidden(cause: str, most: int) -> Refusal:
    if cause == "blocked":
        return Refusal("sender_blocked", "This person takes no requests or invoices from you.")
    return Refusal(
        "too_many_open_items",
        f"At most {most} of these may be open from you to one person. Take one back first.",
    )


def _demand(row: Row) -> Demand:
    return Demand(payable_of(row), row["payee_phone"], row["payer_phone"], row["autopay_at"])
