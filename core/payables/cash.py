"""Cash: agents take it in and pay it out.

A customer asks, any agent accepts. Cash-in: the agent pays the amount into the customer's wallet, and the fee on top.
Cash-out: a hold sets amount and fee aside when the customer asks, so that the agent, who hands out notes, cannot find
the wallet empty; accepting captures the hold and pays the agent, in one call of the ledger.
The contract lets agents accept their own requests: no money is made by that, and the fee is due.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from core import ids
from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, Effects, Leg, Operation, Outcome, Posting, operation_id
from core.payables.fees import fee
from core.payables.kinds import Order
from core.payables.limits import LIMITS_FIRST, first_cause, payer_limits
from core.payables.pay import SCOPED, Key, is_answered, pay
from core.payables.payables import NewPayable, RequestKey, answered, end, store
from core.payables.payments import Held
from core.wallets.books import CASH_OUT, system_account
from core.wallets.kyc import require_proven
from core.wallets.notifications import announce, tell, write
from core.wallets.users import User, user_of
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection, Row
    from core.platform import Platform

_sql = queries(__name__)

Direction = Literal["cash_in", "cash_out"]
# Bounds of the contract.
MAX_MINE: Final = 100
MAX_INCOMING: Final = 200


class CashRequest(NamedTuple):
    """A cash request as its list shows it, in minor units; `state` is the payable's."""

    id: UUID
    kind: Direction
    phone: str
    agent_phone: str | None
    amount: int
    currency: str
    state: str
    created_at: datetime


class _Known(NamedTuple):
    """A cash request with its customer, its hold and its fee, all that settling it takes; minor units."""

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

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs of a cash-out's hold: from the customer to the agent's clearing, and the fee."""
        return _legs(self.customer, self.currency, self.amount, self.fee, self.fee_account)

    @property
    def held(self) -> Held | None:
        """The money that a cash-out has set aside, None for a cash-in."""
        return None if self.hold_no is None else Held(self.hold_no, self.hold_id, self.legs, self.frozen)

    @property
    def told(self) -> dict[str, Any]:
        return {"id": str(self.id), "type": self.kind.replace("_", ""), "amount_cents": self.amount}


async def become_agent(platform: Platform, user: User) -> None:
    """Make the caller an agent. Raises Refusal `not_allowed` outside development."""
    if platform.settings.env != "dev":
        raise Refusal("not_allowed", "Agents are appointed by an administrator.")
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.make_agent, user.id) is not None:
            entry = audited("cash.become_agent", by_user(user.id), {}, user_id=user.id)
            await record(connection, entry)


async def ask(
    platform: Platform, customer: User, direction: Direction, amount: int, *, key: str | None = None
) -> CashRequest:
    """Ask an agent to take in or to pay out `amount` minor units; an equal call under the same key finds the first one.

    A cash-out sets the amount and its fee aside, and counts against the customer's limits at once. Raises Refusal
    `idempotency_conflict`, and for a cash-out `phone_not_proven`, `insufficient_funds` and those of the KYC limits.
    """
    request_key = None if key is None else RequestKey(customer.principal_id, key, (direction, amount))
    minutes = platform.settings.cash_request_expiry_minutes
    new = NewPayable(
        kind=direction,
        currency=platform.currency,
        payee_id=customer.id if direction == "cash_in" else None,
        payer_id=customer.id if direction == "cash_out" else None,
        amount=amount,
        life=timedelta(minutes=minutes) if minutes else None,
    )
    hold: Posting | None = None
    if direction == "cash_out":
        await _require_proven(platform, customer, request_key)
        hold, terms = await _hold(platform, customer, new)
        new = new._replace(hold_id=hold.id, details=terms)

    async def stored(connection: Connection) -> CashRequest:
        made = await store(connection, new, key=request_key)
        if made.new:
            await _open(platform, connection, customer, made.id, new, hold)
        return CashRequest(
            made.id, direction, customer.phone, None, amount, new.currency, "open", made.created_at
        )

    try:
        request = await in_transaction(platform.database, stored)
    except _HoldRefusedError as refused:
        raise await _cause(platform, customer, refused) from None
    platform.wake()
    return request


async def requests(platform: Platform, user: User) -> tuple[list[CashRequest], list[CashRequest]]:
    """Return the newest 100 requests of a user and, for an agent, the oldest 200 that wait for an agent."""
    mine = await platform.database.fetch(_sql.cash_requests_of, user.id, MAX_MINE)
    waiting = await platform.database.fetch(_sql.cash_requests_open, MAX_INCOMING) if user.is_agent else []
    return [_listed(row) for row in mine], [_listed(row) for row in waiting]


async def accept(platform: Platform, agent: User, request_id: UUID | None, key: str | None = None) -> str:
    """Complete a request as an agent; return the state that the request had before, `open` if this call completed it.

    The contract knows no key here; with one, a repetition gets the first answer. A cash-out whose customer has lost
    the KYC level of its request waits until an administrator gives the level back. Raises Refusal
    `not_an_agent`, `request_not_found`, `kyc_level_required`, `account_frozen`, `agent_insufficient_funds`.
    """
    scoped = Key.of(agent, None if key is None else f"{SCOPED}cash.accept:{request_id}:{key}")
    if not agent.is_agent and not await is_answered(platform.database, scoped):
        raise _no_agent()
    known = await _known(platform, request_id)

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
        )

    try:
        await pay(platform, known.kind, agent, scoped, find)
    except Refusal as refusal:
        if refusal.code == "payable_not_open":
            return str(refusal.extra["state"])
        raise
    return "open"


async def reject(platform: Platform, agent: User, request_id: UUID | None) -> str:
    """Turn a request down, as any agent may; return the state that it had before, `open` if this call ended it.

    Raises Refusal `not_an_agent`, `request_not_found`.
    """
    return await _end(platform, await _found(platform, agent, request_id), "rejected", agent)


async def cancel(platform: Platform, customer: User, request_id: UUID | None) -> str:
    """Take a request back; return the state that it had before, `open` if this call ended it.

    Raises Refusal `request_not_found`, `not_owner`.
    """
    known = await _known(platform, request_id)
    if known.customer.id != customer.id:
        raise Refusal("not_owner", "Only the customer can cancel a cash request.")
    return await _end(platform, known, "canceled", customer)


class _HoldRefusedError(Exception):
    """The ledger's refusal of the hold of a cash-out, raised to roll back the transaction that stores the request."""

    def __init__(self, hold: Posting, outcome: Outcome) -> None:
        super().__init__(outcome.kind.code)
        self.hold = hold
        self.outcome = outcome


async def _require_proven(platform: Platform, customer: User, key: RequestKey | None) -> None:
    try:
        require_proven(platform.settings, customer)
    except Refusal:
        if key is None or await answered(platform.database, key) is None:
            raise


async def _open(
    platform: Platform,
    connection: Connection,
    customer: User,
    request_id: UUID,
    new: NewPayable,
    hold: Posting | None,
) -> None:
    """Write the hold, the audit record and the event of a new request."""
    data = {"id": str(request_id), "type": new.kind.replace("_", ""), "amount_cents": new.amount}
    object_id = str(request_id)
    entry = audited("cash.request", by_user(customer.id), data, user_id=customer.id, object_id=object_id)
    told = tell(customer, "cash.request", data, object_id=object_id)
    if hold is None:
        await write(connection, told, [entry])
        return
    effects = Effects(told=told, audited=(entry,))
    hold = msgspec.structs.replace(hold, effects=effects)
    (outcome,) = await platform.ledger.post_within(connection, [hold])
    if not outcome.posted:
        raise _HoldRefusedError(hold, outcome)


async def _cause(platform: Platform, customer: User, refused: _HoldRefusedError) -> Refusal:
    """Return the refusal of a hold in the contract's order of causes: the limits first, then the funds."""
    hold, refusal = refused.hold, refused.outcome.refusal()
    if hold.limits is None:
        return refusal
    taken = -hold.legs[0].amount
    code = await first_cause(platform.database, refused.outcome, customer, taken, hold.limits, LIMITS_FIRST)
    return refusal if code == refusal.code else Refusal(code, refusal.detail)


async def _hold(platform: Platform, customer: User, new: NewPayable) -> tuple[Posting, dict[str, Any]]:
    """Return the hold of a cash-out's money until the request ends, and the details that the request keeps."""
    amount = new.amount or 0
    await platform.users.open_system_accounts()
    cost = fee(amount, platform.config.current.cashout_fee_bps)
    fee_account = await platform.fee_account() if cost else None
    hold = Posting(
        id=ids.new_uuid(),
        principal_id=customer.principal_id,
        legs=_legs(customer, new.currency, amount, cost, fee_account),
        operation=Operation.HOLD,
        kind="cash.out",
        currency=new.currency,
        expires_in_secs=None if new.life is None else int(new.life.total_seconds()),
        limits=payer_limits(platform.settings, customer, fee_on_top=cost),
        unfrozen=True,
    )
    return hold, {"fee": cost, "fee_account": fee_account, "level": customer.kyc_level}


def _legs(customer: User, currency: str, amount: int, cost: int, fee_account: str | None) -> tuple[Leg, ...]:
    legs = (
        Leg(customer.account, -(amount + cost)),
        Leg(system_account(CASH_OUT, currency), amount),
    )
    return legs if fee_account is None else (*legs, Leg(fee_account, cost))


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
        customer = known.customer
        await announce(connection, event, known.told, [customer], actor=by_user(by.id), about=customer.id)
        return True

    if known.state == "open" and await in_transaction(platform.database, ended):
        platform.wake()
        return "open"
    return (await _known(platform, known.id)).state


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


async def _found(platform: Platform, agent: User, request_id: UUID | None) -> _Known:
    if not agent.is_agent:
        raise _no_agent()
    return await _known(platform, request_id)


def _no_agent() -> Refusal:
    return Refusal("not_an_agent", "Only agents take cash in and pay it out.")


async def _known(platform: Platform, request_id: UUID | None) -> _Known:
    row = await platform.database.fetchrow(_sql.cash_request, request_id)
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
    )


def _listed(row: Row) -> CashRequest:
    return CashRequest(*(row[name] for name in CashRequest._fields))
