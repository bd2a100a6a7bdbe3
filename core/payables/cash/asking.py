"""Asking an agent for cash: a cash-out sets its money aside at once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from core import ids
from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.ledger.items import Effects, Leg, Operation, Outcome, Posting
from core.payables.cash.lists import CashRequest
from core.payables.codes import new_short_code
from core.payables.fees import fee
from core.payables.limits import LIMITS_FIRST, Taking, explained, payer_limits
from core.payables.payables import NewPayable, RequestKey, answered, store
from core.wallets.books import CASH_OUT, system_account
from core.wallets.kyc import require_proven
from core.wallets.notifications import tell, write
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection
    from core.payables.cash.lists import Direction
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)


async def ask(
    platform: Platform,
    customer: User,
    direction: Direction,
    amount: int,
    *,
    agent_phone: str | None = None,
    key: str | None = None,
) -> CashRequest:
    """Ask an agent to take in or to pay out `amount` minor units; an equal call under the same key finds the first one.

    With `agent_phone` that agent alone sees and completes it. A cash-out sets the amount and its fee aside, and counts
    against the customer's limits until it ends unpaid. Raises Refusal `agent_not_found`, `idempotency_conflict`,
    `too_many_open_items`, and for a cash-out `phone_not_proven`, `insufficient_funds` and those of the KYC limits.
    """
    asked = (direction, amount) if agent_phone is None else (direction, amount, agent_phone)
    request_key = None if key is None else RequestKey(customer.principal_id, key, asked)
    agent = await _named(platform, customer, agent_phone, request_key)
    minutes = platform.settings.cash_request_expiry_minutes
    new = NewPayable(
        kind=direction,
        currency=platform.currency,
        payee_id=customer.id if direction == "cash_in" else None,
        payer_id=customer.id if direction == "cash_out" else None,
        amount=amount,
        code=new_short_code(),
        life=timedelta(minutes=minutes) if minutes else None,
        agent_id=None if agent is None else agent.id,
    )
    hold: Posting | None = None
    if direction == "cash_out":
        await _require_proven(platform, customer, request_key)
        hold, terms = await _hold(platform, customer, new)
        new = new._replace(hold_id=hold.id, details=terms)

    async def stored(connection: Connection) -> CashRequest:
        made = await store(connection, new, key=request_key)
        if made.new:
            await _require_few(platform, connection, customer)
            await _open(platform, connection, customer, made.id, new, hold)
        return CashRequest(
            made.id,
            direction,
            customer.phone,
            None,
            amount,
            new.currency,
            "open",
            made.created_at,
            made.expires_at,
            made.code,
            agent_phone,
        )

    try:
        request = await in_transaction(platform.database, stored)
    except _HoldRefusedError as refused:
        raise await _cause(platform, customer, refused) from None
    platform.wake()
    return request


async def _named(
    platform: Platform, customer: User, phone: str | None, key: RequestKey | None
) -> User | None:
    """Return the agent whom a customer names. Raises Refusal `agent_not_found`, unless the key is answered already."""
    if phone is None:
        return None
    agent = await platform.users.by_phone(phone)
    if agent is not None and agent.is_agent and agent.id != customer.id:
        return agent
    if key is not None and await answered(platform.database, key) is not None:
        return None
    raise Refusal("agent_not_found", "There is no agent under this phone.")


async def _require_proven(platform: Platform, customer: User, key: RequestKey | None) -> None:
    try:
        require_proven(platform.settings, customer)
    except Refusal:
        if key is None or await answered(platform.database, key) is None:
            raise


async def _require_few(platform: Platform, connection: Connection, customer: User) -> None:
    most = platform.settings.open_demands_max
    if await connection.fetchval(_sql.cash_crowded, customer.id, most):
        said = f"At most {most} of your cash requests may be open. Take one back first."
        raise Refusal("too_many_open_items", said)


class _HoldRefusedError(Exception):
    """The ledger's refusal of the hold of a cash-out, raised to roll back the transaction that stores the request."""

    def __init__(self, hold: Posting, outcome: Outcome) -> None:
        super().__init__(outcome.kind.code)
        self.hold = hold
        self.outcome = outcome


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
    hold = refused.hold
    taking = Taking(
        customer.account, -hold.legs[0].amount, platform.currency, hold.limits, causes=LIMITS_FIRST
    )
    return await explained(platform.database, refused.outcome, taking)


async def _hold(platform: Platform, customer: User, new: NewPayable) -> tuple[Posting, dict[str, Any]]:
    """Return the hold of a cash-out's money until the request ends, and the details that the request keeps."""
    amount = new.amount or 0
    await platform.users.open_system_accounts()
    cost = fee(amount, platform.config.current.cashout_fee_bps)
    fee_account = await platform.fee_account() if cost else None
    hold = Posting(
        id=ids.new_uuid(),
        principal_id=customer.principal_id,
        legs=hold_legs(customer, new.currency, amount, cost, fee_account),
        operation=Operation.HOLD,
        kind="cash.out",
        currency=new.currency,
        expires_in_secs=None if new.life is None else int(new.life.total_seconds()),
        limits=payer_limits(platform.settings, customer, fee_on_top=cost),
        unfrozen=True,
    )
    return hold, {"fee": cost, "fee_account": fee_account, "level": customer.kyc_level}


def hold_legs(
    customer: User, currency: str, amount: int, cost: int, fee_account: str | None
) -> tuple[Leg, ...]:
    """Return the legs of a cash-out's hold: from the customer to the agents' clearing, and the fee."""
    legs = (
        Leg(customer.account, -(amount + cost)),
        Leg(system_account(CASH_OUT, currency), amount),
    )
    return legs if fee_account is None else (*legs, Leg(fee_account, cost))
