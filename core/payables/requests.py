"""Payment requests: somebody asks somebody else for money, who accepts or rejects.

pending -> accepted | rejected | canceled | expired (wallet contract, section 2); what comes later is told which.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from core import ids, metrics
from core.audit import audited, by_user
from core.errors import Refusal
from core.payables import demands
from core.payables.limits import LIMITS_FIRST, payer_limits
from core.payables.payables import NewPayable, RequestKey, with_metadata
from core.payables.payments import Payment
from core.wallets.notifications import tell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from core.payables.demands import Claim, Claims
    from core.payables.payables import State, ToPay
    from core.platform import Platform
    from core.wallets.users import User


class Accepted(NamedTuple):
    """What became of an acceptance: the transfer, or the state that the request was in already."""

    transfer_id: UUID | None
    state: State


class Asked(NamedTuple):
    """What is asked for: minor units, for how long (None: REQUEST_EXPIRY_MINUTES), and what the client adds to it."""

    amount: int
    expires_in_minutes: int | None = None
    metadata: Mapping[str, Any] | None = None


async def create(
    platform: Platform, requester: User, to_phone: str, asked: Asked, *, key: str | None = None
) -> Claim:
    """Ask the user of a phone for money; the same call under the same key returns the request that it made.

    Raises Refusal `target_not_found`, `request_to_self`, `idempotency_conflict`.
    """
    target = await platform.users.by_phone(to_phone)
    if target is None:
        raise Refusal("target_not_found", "Nobody has a wallet under this phone.")
    if target.id == requester.id:
        raise Refusal("request_to_self", "A request goes to somebody else.")
    return await ask(platform, requester, target, asked, key=key)


async def ask(
    platform: Platform, requester: User, target: User, asked: Asked, *, key: str | None = None
) -> Claim:
    """Store a request of one user to another, whoever they are. Raises Refusal `idempotency_conflict`."""
    minutes = asked.expires_in_minutes or platform.settings.request_expiry_minutes
    new = NewPayable(
        kind="request",
        currency=platform.currency,
        payee_id=requester.id,
        payer_id=target.id,
        amount=asked.amount,
        expires_at=datetime.now(UTC) + timedelta(minutes=minutes) if minutes else None,
        details=with_metadata(asked.metadata),
    )
    request_key = None
    if key is not None:
        request_key = RequestKey(requester.principal_id, key, ("request", str(target.id), *asked))
    claim = await demands.create(platform, new, requester, target, "requests.create", key=request_key)
    metrics.PAYMENT_REQUESTS.add("create")
    return claim


async def of_user(platform: Platform, user: User) -> Claims:
    """Return the newest requests to and of a user."""
    return await demands.of_user(platform, "request", user)


async def get(platform: Platform, user: User, request_id: UUID) -> Claim:
    """Return a request of one of its two sides. Raises Refusal `request_not_found`, `forbidden`."""
    claim = await _find(platform, request_id)
    if user.id not in {claim.payable.payee_id, claim.payable.payer_id}:
        raise Refusal("forbidden", "This request is between others.")
    return claim


async def accept(platform: Platform, payer: User, request_id: UUID) -> Accepted:
    """Pay a request. One that is over already is left as it is, and its state returned.

    Raises Refusal `request_not_found`, `not_yours_to_accept`, and what stands in the way of the money.
    """
    found = await platform.payables.to_pay(request_id)
    if found is None or found.payable.kind != "request" or found.payee is None:
        raise _not_found(request_id)
    if found.payable.payer_id != payer.id:
        raise Refusal("not_yours_to_accept", "Only who is asked can accept a request.")
    if found.payable.state != "open":
        return Accepted(None, found.payable.state)
    try:
        paid = await platform.pay(_payment(platform, payer, found, found.payee))
    except Refusal as refusal:
        if refusal.code != "payable_not_open":
            raise
        return Accepted(None, refusal.extra["state"])
    metrics.PAYMENT_REQUESTS.add("accept")
    return Accepted(paid.transfer_id, "paid")


async def reject(platform: Platform, user: User, request_id: UUID) -> State | None:
    """Reject a request, as who is asked or who asks; None, or the state that it was in already.

    Raises Refusal `request_not_found`, `not_allowed`.
    """
    claim = await _find(platform, request_id)
    if user.id not in {claim.payable.payee_id, claim.payable.payer_id}:
        raise Refusal("not_allowed", "Only its two sides can reject a request.")
    was = await demands.end(platform, claim, "rejected", user, "requests.reject")
    if was is None:
        metrics.PAYMENT_REQUESTS.add("reject")
    return was


async def cancel(platform: Platform, user: User, request_id: UUID) -> State | None:
    """Take a request back; None, or the state that it was in already.

    Raises Refusal `request_not_found`, `only_requester_can_cancel`.
    """
    claim = await _find(platform, request_id)
    if user.id != claim.payable.payee_id:
        raise Refusal("only_requester_can_cancel", "Only who asks can cancel a request.")
    was = await demands.end(platform, claim, "canceled", user, "requests.cancel")
    if was is None:
        metrics.PAYMENT_REQUESTS.add("cancel")
    return was


def _payment(platform: Platform, payer: User, found: ToPay, payee: User) -> Payment:
    payable = found.payable
    if payable.amount is None:
        raise LookupError(f"the request {payable.id} has no amount")
    # New for each call: that a request is paid once is the payable's business, and so a caller whose connection to
    # the database broke at the commit still learns that it was this call that paid.
    transfer_id = ids.new_uuid()
    request_id = str(payable.id)
    data = {"id": request_id, "transfer_id": str(transfer_id)}
    return Payment(
        id=transfer_id,
        principal_id=payer.principal_id,
        kind="requests.accept",
        source=payer.account,
        target=payee.account,
        amount=payable.amount,
        currency=payable.currency,
        identity=(request_id,),
        payer=payer,
        limits=payer_limits(platform.settings, payer),
        order=LIMITS_FIRST,
        payable=payable.id,
        settler=payer.id,
        told=tell(payee, "requests.accept", data, object_id=request_id),
        audited=(
            audited("requests.accept", by_user(payer.id), data, user_id=payee.id, object_id=request_id),
        ),
    )


async def _find(platform: Platform, request_id: UUID) -> Claim:
    claim = await demands.find(platform.database, "request", request_id)
    if claim is None:
        raise _not_found(request_id)
    return claim


def _not_found(request_id: UUID) -> Refusal:
    return Refusal("request_not_found", f"There is no payment request {request_id}.")
