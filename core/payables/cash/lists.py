"""Cash: agents take it in and pay it out.

A customer asks, an agent accepts. Cash-in: the agent pays the amount into the customer's wallet, and the fee on top.
Cash-out: a hold sets amount and fee aside when the customer asks, so that the agent, who hands out notes, cannot find
the wallet empty; accepting captures the hold and pays the agent, in one call of the ledger.

A customer names an agent, or shows an agent the code of the request; that agent alone then completes it and sees the
phone. Other open requests are shown to all agents, since the contract lists them, without phones.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import UUID

from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.payables.codes import as_typed
from core.phones import masked
from core.wallets.notifications import write
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from core.database import Connection, Row
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

Direction = Literal["cash_in", "cash_out"]
# Bounds of the contract.
MAX_MINE: Final = 100
MAX_INCOMING: Final = 200
# The text of a request's QR code begins with it.
PREFIX: Final = "CASH|"


class CashRequest(NamedTuple):
    """A cash request as its list shows it, in minor units; `state` is the payable's.

    `agent_phone` is that of the agent who completed it, `named_phone` that of the agent who may. Agents whom the
    customer has not named see a masked `phone` and no `code`.
    """

    id: UUID
    kind: Direction
    phone: str
    agent_phone: str | None
    amount: int
    currency: str
    state: str
    created_at: datetime
    expires_at: datetime | None = None
    code: str | None = None
    named_phone: str | None = None


class Wanted(NamedTuple):
    """The part of a list of cash requests that is wanted; None: any.

    `before` is the last id of the part before, of the user's own requests; `offset` counts requests of the others'.
    """

    direction: Direction | None = None
    state: str | None = None
    phone: str | None = None
    before: UUID | None = None
    offset: int = 0
    limit: int | None = None

    @property
    def own_limit(self) -> int:
        """The number of the user's own requests."""
        return self.limit or MAX_MINE

    @property
    def incoming_limit(self) -> int:
        """The number of the others' requests."""
        return min(self.limit or MAX_INCOMING, MAX_INCOMING)


async def requests(
    platform: Platform, user: User, wanted: Wanted | None = None
) -> tuple[list[CashRequest], list[CashRequest]]:
    """Return the newest requests of a user and, for an agent, open ones: first those that name the agent, oldest first.

    The others take turns, one of each customer before the second of any, so that nobody crowds out the rest. One more
    of each comes than is wanted, if there are more.
    """
    wanted = wanted or Wanted()
    asked = (wanted.direction, wanted.state, wanted.before)
    mine = await platform.database.fetch(_sql.cash_requests_of, user.id, wanted.own_limit + 1, *asked)
    waiting: list[Row] = []
    if user.is_agent:
        page = (wanted.direction, wanted.phone, wanted.offset, wanted.incoming_limit + 1)
        waiting = await platform.database.fetch(_sql.cash_requests_open, user.id, *page)
    return [_listed(row) for row in mine], [_seen(row, user) for row in waiting]


async def claim(platform: Platform, agent: User, text: str) -> CashRequest:
    """Return the open request whose code a customer shows to an agent, who may complete it from now on.

    Raises Refusal `not_an_agent`, `request_not_found`, `own_cash_request`.
    """
    if not agent.is_agent:
        raise no_agent()

    async def claimed(connection: Connection) -> Row:
        row = await connection.fetchrow(_sql.claim_cash_request, as_typed(text, PREFIX).upper(), agent.id)
        if row is None:
            raise Refusal("request_not_found", "No cash request is open under this code.")
        if row["customer_id"] == agent.id:
            raise own_request()
        if row["named_before"] != agent.id:
            data = {"id": str(row["id"])}
            entry = audited(
                "cash.claim", by_user(agent.id), data, user_id=row["customer_id"], object_id=data["id"]
            )
            await write(connection, (), [entry])
        return row

    return _listed(await in_transaction(platform.database, claimed))


def own_request() -> Refusal:
    """Return the refusal of an agent's own request."""
    return Refusal("own_cash_request", "Agents complete the requests of others, not their own.")


def no_agent() -> Refusal:
    """Return the refusal of a user who is no agent."""
    return Refusal("not_an_agent", "Only agents take cash in and pay it out.")


def _listed(row: Row) -> CashRequest:
    return CashRequest(*(row[name] for name in CashRequest._fields))


def _seen(row: Row, agent: User) -> CashRequest:
    """Return an open request as an agent sees it; those who did not name the agent keep their phone to themselves."""
    request = _listed(row)
    if row["agent_id"] == agent.id:
        return request
    return request._replace(phone=masked(request.phone), code=None)
