"""Payment requests: a payee asks a payer for money; the payer accepts or rejects.

pending -> accepted | rejected | canceled | expired (wallet contract, section 2); a later call is told the state.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import Refusal
from core.payables import demands
from core.payables.pay import SCOPED, Key, pay
from core.payables.payables import NewPayable, RequestKey, with_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from core.payables.demands import Demand, Demands, Wanted
    from core.payables.kinds import Order
    from core.payables.payables import State
    from core.platform import Platform
    from core.wallets.users import User


class Accepted(NamedTuple):
    """The answer to an acceptance: the transfer, or None and the state of a request that was over already."""

    transfer_id: UUID | None
    state: State


class Terms(NamedTuple):
    """The terms of a request: minor units, minutes until its end (None: REQUEST_EXPIRY_MINUTES), and metadata."""

    amount: int
    expires_in_minutes: int | None = None
    metadata: Mapping[str, Any] | None = None


async def create(
    platform: Platform, requester: User, to_phone: str, terms: Terms, *, key: str | None = None
) -> Demand:
    """Ask the user of a phone for money; an equal call under the same key returns the first request.

    Raises Refusal `target_not_found`, `request_to_self`, `idempotency_conflict`.
    """
    target = await platform.users.by_phone(to_phone)
    if target is None:
        raise Refusal("target_not_found", "Nobody has a wallet under this phone.")
    if target.id == requester.id:
        raise Refusal("request_to_self", "A request goes to somebody else.")
    return await ask(platform, requester, target, terms, key=key)


async def ask(
    platform: Platform, requester: User, target: User, terms: Terms, *, key: str | None = None
) -> Demand:
    """Store a request of one user to any other. Raises Refusal `idempotency_conflict`."""
    minutes = terms.expires_in_minutes or platform.settings.request_expiry_minutes
    new = NewPayable(
        kind="request",
        currency=platform.currency,
        payee_id=requester.id,
        payer_id=target.id,
        amount=terms.amount,
        life=timedelta(minutes=minutes) if minutes else None,
        details=with_metadata(terms.metadata),
    )
    request_key = None
    if key is not None:
        request_key = RequestKey(requester.principal_id, key, ("request", str(target.id), *terms))
    return await demands.create(platform, new, requester, target, "requests.create", key=request_key)


async def of_user(platform: Platform, user: User, wanted: Wanted | None = None) -> Demands:
    """Return the newest requests to a user and of a user, 100 of each unless `wanted` says otherwise."""
    return await demands.of_user(platform, "request", user, wanted)


async def get(platform: Platform, user: User, request_id: UUID) -> Demand:
    """Return a request of one of its two sides. Raises Refusal `request_not_found`, `forbidden`."""
    demand = await _find(platform, request_id)
    if user.id not in {demand.payable.payee_id, demand.payable.payer_id}:
        raise Refusal("forbidden", "This request is between others.")
    return demand


async def accept(platform: Platform, payer: User, request_id: UUID, key: str | None = None) -> Accepted:
    """Pay a request; return the state of one that is over already.

    The contract knows no key here; with one, a repetition gets the first answer. Raises Refusal `request_not_found`,
    `not_yours_to_accept`, and as `core.payables.pay.pay`.
    """

    async def find() -> Order:
        found = await platform.payables.to_pay(request_id)
        if found is None or found.payable.kind != "request" or found.payee is None:
            raise _not_found(request_id)
        if found.payable.payer_id != payer.id:
            raise Refusal("not_yours_to_accept", "Only the payer can accept a request.")
        return found.order(payer, found.payee, None, (str(request_id),), object_id=str(request_id))

    # The key counts for this request alone: the contract knows no key here, so another use must not conflict.
    scoped = None if key is None else f"{SCOPED}requests.accept:{request_id}:{key}"
    try:
        paid = await pay(platform, "request", payer, Key.of(payer, scoped), find)
    except Refusal as refusal:
        if refusal.code != "payable_not_open":
            raise
        return Accepted(None, refusal.extra["state"])
    return Accepted(paid.transfer_id, "paid")


async def reject(platform: Platform, user: User, request_id: UUID) -> State | None:
    """Reject a request, as its payer or payee; return None, or the state of one that was over already.

    Raises Refusal `request_not_found`, `not_allowed`.
    """
    demand = await _find(platform, request_id)
    if user.id not in {demand.payable.payee_id, demand.payable.payer_id}:
        raise Refusal("not_allowed", "Only payer and payee can reject a request.")
    return await demands.end(platform, demand, "rejected", user, "requests.reject")


async def cancel(platform: Platform, user: User, request_id: UUID) -> State | None:
    """Take a request back; return None, or the state of one that was over already.

    Raises Refusal `request_not_found`, `only_requester_can_cancel`.
    """
    demand = await _find(platform, request_id)
    if user.id != demand.payable.payee_id:
        raise Refusal("only_requester_can_cancel", "Only the payee can cancel a request.")
    return await demands.end(platform, demand, "canceled", user, "requests.cancel")


async def _find(platform: Platform, request_id: UUID) -> Demand:
    demand = await demands.find(platform.database, "request", request_id)
    if demand is None:
        raise _not_found(request_id)
    return demand


def _not_found(request_id: UUID) -> Refusal:
    return Refusal("request_not_found", f"There is no payment request {request_id}.")
