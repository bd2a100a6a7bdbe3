"""Settling a cash request: an agent completes it or turns it down, or its customer takes it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from core.audit import by_user
from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, Condition, ItemLimits, Operation, Posting, operation_id
from core.payables.cash.asking import hold_legs
from core.payables.cash.lists import no_agent, own_request
from core.payables.fees import fee
from core.payables.kinds import Order
from core.payables.limits import give_limits_back
from core.payables.pay import SCOPED, Key, is_answered, pay
from core.payables.payables import end
from core.payables.payments import Held
from core.wallets.agents import Bounds
from core.wallets.amounts import shown
from core.wallets.notifications import announce
from core.wallets.users import User, user_of
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection
    from core.ledger.items import Leg
    from core.payables.cash.lists import Direction
    from core.platform import Platform

_sql = queries(__name__)


class _Known(NamedTuple):
    """A cash request with its customer, its hold and its fee, all that settling it takes; minor units.

    `bounds` are those of the agent who asks.
    """

    id: UUID
    kind: Direction
    amount: int
    currency: str
    state: str
    customer: User
    hold_id: UUID | None
    hold_no: int | None
    fee: int
    fee_account: str | None
    level: int
    frozen: bool
    agent_id: UUID | None
    bounds: Bounds

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs of a cash-out's hold: from the customer to the agent's clearing, and the fee."""
        return hold_legs(self.customer, self.currency, self.amount, self.fee, self.fee_account)

    @property
    def held(self) -> Held | None:
        """The money that a cash-out has set aside, None for a cash-in."""
        return None if self.hold_no is None else Held(self.hold_no, self.hold_id, self.legs, self.frozen)

    @property
    def told(self) -> dict[str, Any]:
        return {"id": str(self.id), "type": self.kind.replace("_", ""), "amount_cents": self.amount}


async def accept(platform: Platform, agent: User, request_id: UUID | None, key: str | None = None) -> str:
    """Complete a request as an agent; return the state that the request had before, `open` if this call completed it.

    The contract knows no key here; with one, a repetition gets the first answer. A cash-out whose customer has lost
    the KYC level of its request waits until an administrator gives the level back. Raises Refusal
    `not_an_agent`, `request_not_found`, `own_cash_request`, `not_your_cash_request`, `agent_limit_exceeded`,
    `kyc_level_required`, `account_frozen`, `agent_insufficient_funds`.
    """
    scoped = Key.of(agent, None if key is None else f"{SCOPED}cash.accept:{request_id}:{key}")
    if not agent.is_agent and not await is_answered(platform.database, scoped):
        raise no_agent()
    known = await _known(platform, request_id, agent)
    forbidden = _forbidden(known, agent)
    if forbidden is not None and not await is_answered(platform.database, scoped):
        raise forbidden
    limits, conditions = _bounded(platform, known, agent)

    async def find() -> Order:
        payer, payee = (agent, known.customer) if known.kind == "cash_in" else (known.customer, agent)
        return Order(
            known.kind,
            agent,
            payee,
            known.amount,
            known.currency,
            (str(known.id),),
            payer=payer,
            payable_id=known.id,
            state=known.state,
            held=known.held,
            level=known.level,
            object_id=str(known.id),
            limits=limits,
            conditions=conditions,
        )

    try:
        await pay(platform, known.kind, agent, scoped, find)
    except Refusal as refusal:
        if refusal.code == "payable_not_open":
            return str(refusal.extra["state"])
        raise
    return "open"


def _forbidden(known: _Known, agent: User) -> Refusal | None:
    """Return the refusal of an agent who may not complete a request, or not one over so much."""
    if known.customer.id == agent.id:
        return own_request()
    if known.agent_id not in {None, agent.id}:
        return Refusal("not_your_cash_request", "The customer has named another agent.")
    most = known.bounds.request_max
    if known.state == "open" and most is not None and known.amount > most:
        said = f"An administrator lets you handle at most {shown(most, known.currency)} in one request."
        return Refusal("agent_limit_exceeded", said, limit_cents=most)
    return None


def _bounded(
    platform: Platform, known: _Known, agent: User
) -> tuple[ItemLimits | None, tuple[Condition, ...]]:
    """Return the bounds on the agent's money that the ledger decides under the lock of the agent's account."""
    _, day_max, float_max = known.bounds
    if known.kind == "cash_in":
        on_top = fee(known.amount, platform.config.current.cashin_fee_bps)
        return (None if day_max is None else ItemLimits(day_amount_max=day_max + on_top)), ()
    return None, () if float_max is None else (Condition(agent.account, balance_at_most=float_max),)


async def reject(platform: Platform, agent: User, request_id: UUID | None) -> str:
    """Turn a request down, as an agent; return the state that it had before, `open` if this call ended it.

    Any agent may as long as the customer has named none. Raises Refusal `not_an_agent`, `request_not_found`,
    `not_your_cash_request`.
    """
    if not agent.is_agent:
        raise no_agent()
    known = await _known(platform, request_id, agent)
    if known.agent_id not in {None, agent.id}:
        raise Refusal("not_your_cash_request", "The customer has named another agent.")
    return await _end(platform, known, "rejected", agent)


async def cancel(platform: Platform, customer: User, request_id: UUID | None) -> str:
    """Take a request back; return the state that it had before, `open` if this call ended it.

    Raises Refusal `request_not_found`, `not_owner`.
    """
    known = await _known(platform, request_id, customer)
    if known.customer.id != customer.id:
        raise Refusal("not_owner", "Only the customer can cancel a cash request.")
    return await _end(platform, known, "canceled", customer)


async def _end(platform: Platform, known: _Known, state: Literal["canceled", "rejected"], by: User) -> str:
    """End a request and void its hold, in one transaction, which locks the payable before the accounts as all do."""
    event = "cash.cancel" if state == "canceled" else "cash.reject"

    async def ended(connection: Connection) -> bool:
        if not await end(connection, known.id, state, by=by.id):
            return False
        if known.hold_no is not None:
            (outcome,) = await platform.ledger.post_within(connection, [_void(known)])
            # `hold_not_open` is fine: the hold expired or was voided. A captured hold means a paid request, and
            # `end` returns False for that.
            if not outcome.posted and outcome.kind.code != "hold_not_open":
                raise outcome.refusal()
            await give_limits_back(connection, [known.id])
        customer = known.customer
        await announce(connection, event, known.told, [customer], actor=by_user(by.id), about=customer.id)
        return True

    if known.state == "open" and await in_transaction(platform.database, ended):
        platform.wake()
        return "open"
    return (await _known(platform, known.id, by)).state


def _void(known: _Known) -> Posting:
    return Posting(
        id=operation_id(SYSTEM_PRINCIPAL, f"cash-void:{known.id}"),
        principal_id=SYSTEM_PRINCIPAL,
        legs=known.legs,
        operation=Operation.VOID,
        kind="cash.out",
        target_no=known.hold_no,
        target_id=known.hold_id,
        unfrozen=True,
    )


async def _known(platform: Platform, request_id: UUID | None, by: User) -> _Known:
    row = await platform.database.fetchrow(_sql.cash_request, request_id, by.id)
    if row is None:
        raise Refusal("request_not_found", "There is no cash request with this id.")
    terms = msgspec.json.decode(row["details"])
    return _Known(
        row["request_id"],
        row["request_kind"],
        row["amount"],
        row["currency"],
        row["request_state"],
        user_of(row),
        row["hold_id"],
        row["hold_no"],
        terms.get("fee", 0),
        terms.get("fee_account"),
        terms.get("level", 0),
        row["wallet_frozen"],
        row["agent_id"],
        Bounds(*(row[name] for name in Bounds._fields)),
    )
