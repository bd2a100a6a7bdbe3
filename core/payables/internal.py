"""Operations for sibling services: payments without limits and fees, payment requests, invoices, a wallet's balance.

An unknown phone gets a user and a wallet. Idempotency keys belong to the platform, with a space for each operation.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core import ids
from core.audit import audited
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payables import demands
from core.payables.pay import Key, require_proven_payer
from core.payables.payables import ANYBODY, NewPayable, RequestKey, with_metadata
from core.payables.payments import Paid, Payment, post
from core.wallets.balances import Balance, read_balance
from core.wallets.notifications import tell_all

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from core.payables.demands import Demand
    from core.platform import Platform
    from core.wallets.users import User

ACTOR: Final = "internal"
# A week, the contract's bound.
MAX_REQUEST_MINUTES: Final = 10_080


class Instruction(NamedTuple):
    """Two phones that have been validated, the amount between them in minor units, and the caller's key."""

    from_phone: str
    to_phone: str
    amount: int
    key: str | None


async def transfer(platform: Platform, wanted: Instruction) -> Paid:
    """Pay from one phone's wallet to another's; both may be the same, which moves nothing.

    Raises Refusal `phone_not_proven`, `insufficient_funds`, `idempotency_conflict`.
    """
    payer, payee = await _both(platform, wanted)
    key = _key("transfer", wanted.key)
    transfer_id = ids.new_uuid() if key is None else operation_id(SYSTEM_PRINCIPAL, key)
    await require_proven_payer(platform, payer, Key(transfer_id, key is not None))
    data = {"transfer_id": str(transfer_id), "amount_cents": wanted.amount}
    told = tell_all((payee, payer), "internal.transfer", data, object_id=str(transfer_id))
    payment = Payment(
        id=transfer_id,
        principal_id=SYSTEM_PRINCIPAL,
        kind="internal.transfer",
        source=payer.account,
        target=payee.account,
        amount=wanted.amount,
        currency=platform.currency,
        identity=(wanted.from_phone, wanted.to_phone, wanted.amount),
        told=told,
        audited=(audited("internal.transfer", ACTOR, data, user_id=payer.id, object_id=str(transfer_id)),),
    )
    return await post(platform, payment)


async def request(
    platform: Platform, wanted: Instruction, *, minutes: int | None, metadata: Mapping[str, Any] | None
) -> UUID:
    """Store a request of `from_phone` to `to_phone` for `minutes`, a week at most (None: REQUEST_EXPIRY_MINUTES).

    Raises Refusal `idempotency_conflict`.
    """
    requester, target = await _both(platform, wanted)
    life = min(minutes, MAX_REQUEST_MINUTES) if minutes else platform.settings.request_expiry_minutes
    new = NewPayable(
        kind="request",
        currency=platform.currency,
        payee_id=requester.id,
        payer_id=target.id,
        amount=wanted.amount,
        life=timedelta(minutes=life) if life else None,
        details=with_metadata(metadata),
    )
    return await _create(platform, wanted, new, requester, target, (minutes, metadata))


async def invoice(
    platform: Platform,
    wanted: Instruction,
    *,
    due_in_days: int,
    reference: str | None,
    description: str | None,
) -> UUID:
    """Send an invoice of `from_phone` to `to_phone`. Raises Refusal `idempotency_conflict`."""
    issuer, payer = await _both(platform, wanted)
    new = NewPayable(
        kind="invoice",
        currency=platform.currency,
        payee_id=issuer.id,
        payer_id=payer.id,
        amount=wanted.amount,
        due_in=timedelta(days=due_in_days),
        # The service vouches for its issuer, who need not be a merchant.
        details={"reference": reference, "description": description, "collects": ANYBODY},
    )
    terms = (due_in_days, reference, description)
    return await _create(platform, wanted, new, issuer, payer, terms)


async def wallet(platform: Platform, phone: str) -> tuple[User, Balance]:
    """Return the user of a phone and the wallet's balance; an unknown phone gets a user and a wallet."""
    user = await platform.users.ensure(phone, actor=ACTOR)
    return user, await read_balance(platform, user)


async def find_request(platform: Platform, request_id: UUID) -> Demand:
    """Return a payment request. Raises Refusal `internal_request_not_found`."""
    found = await demands.find(platform.database, "request", request_id)
    if found is None:
        raise unknown_request()
    return found


def unknown_request() -> Refusal:
    """Return the refusal of an id that no payment request has."""
    return Refusal("internal_request_not_found", "There is no payment request with this id.")


async def _both(platform: Platform, wanted: Instruction) -> tuple[User, User]:
    first, second = await asyncio.gather(
        platform.users.ensure(wanted.from_phone, actor=ACTOR),
        platform.users.ensure(wanted.to_phone, actor=ACTOR),
    )
    return first, second


async def _create(
    platform: Platform, wanted: Instruction, new: NewPayable, payee: User, payer: User, terms: tuple[Any, ...]
) -> UUID:
    """Store a demand and tell both sides; return its id."""
    key = _key(new.kind, wanted.key)
    request_key = None if key is None else RequestKey(SYSTEM_PRINCIPAL, key, (new.kind, *wanted[:3], *terms))
    event = f"{new.kind}s.create"
    return (await demands.store(platform, new, payee, payer, event, key=request_key, actor=ACTOR)).id


def _key(operation: str, key: str | None) -> str | None:
    return None if key is None else f"internal:{operation}:{key}"
