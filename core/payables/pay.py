"""Paying: one operation for every kind of payable. The rules of each kind stand in `core.payables.kinds`.

A known key gets its stored answer before any rule is asked: level, payee, state and risk here, limits and freezes in
the ledger. The ledger looks at the key first in any case, so this module looks for it only where a rule says no: a
payment that passes costs no further round trip.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core import ids
from core.audit import audited, by_user, record
from core.errors import Refusal
from core.ledger.items import operation_id
from core.ledger.stored import load_outcomes
from core.payables import risk
from core.payables.kinds import KINDS
from core.payables.limits import payer_limits
from core.payables.payments import Payment, post
from core.wallets.kyc import require_kyc, require_proven
from core.wallets.notifications import tell_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from core.database import Database
    from core.ledger.items import Audited
    from core.payables.kinds import Kind, Order, Rules
    from core.payables.payments import Paid
    from core.platform import Platform
    from core.settings import Settings
    from core.wallets.users import User


# The begin of a key that counts for one payable alone. No key of a caller has a control character.
SCOPED: Final = "\x1f"


class Key(NamedTuple):
    """The id that a payment gets, and whether the caller can ask for it again; see `operation_id`."""

    id: UUID
    given: bool = True

    @classmethod
    def of(cls, user: User, text: str | None) -> Key:
        """Return the key of a user, or a new one that nobody can repeat."""
        return cls(ids.new_uuid(), False) if text is None else cls(operation_id(user.principal_id, text))


async def pay(
    platform: Platform, kind: Kind, asker: User, key: Key, find: Callable[[], Awaitable[Order]]
) -> Paid:
    """Pay the order that `find` returns; `find` raises Refusal where there is no payable of this kind.

    A repeated key gets the first answer. Raises Refusal `idempotency_conflict` for a key that was used for something
    else, `kyc_level_required`, `phone_not_proven`, `risk_blocked`, the refusals of the kind (`core.payables.kinds`),
    `payable_not_open` with the payable's `state` where the kind has no word for it, and those of the ledger, such as
    `insufficient_funds`.
    """
    rules = KINDS[kind]
    order: Order | None = None
    flagged: Audited | None = None
    try:
        require_kyc(asker, rules.level(platform.settings))
        order = await find()
        check(platform, order)
        flagged = _assess(platform.settings, rules, order)
    except Refusal as refusal:
        if not await is_answered(platform.database, key):
            if isinstance(refusal, risk.Blocked):
                await record(platform.database, refusal.record)
            raise
        order = order or await _found(find)
        if order is None or order.amount is None:
            raise Refusal("idempotency_conflict", "This key was used for another request.") from refusal
    payment = await prepare(platform, order, key.id, flagged)
    try:
        paid = await post(platform, payment)
    except Refusal as refusal:
        if flagged is not None and refusal.code != "idempotency_conflict":
            await record(platform.database, flagged)
        if refusal.code in {"payable_not_open", "payable_not_found"}:
            raise _closed(rules, refusal.extra.get("state", "gone")) from refusal
        raise
    if not paid.replayed:
        rules.counted(payment)
    return paid


def check(platform: Platform, order: Order) -> None:
    """Raise Refusal where a rule forbids an order; the ledger decides the rules that need a lock."""
    rules, settings = KINDS[order.kind], platform.settings
    if order.state != "open" and not rules.closed:
        # These kinds answer with the state itself, so the state counts before the payee does.
        raise _closed(rules, order.state)
    collects = order.collects or rules.collects
    verified = order.payee.kyc_level >= collects.level(settings)
    if not verified or (collects.merchant and not order.payee.sells):
        raise Refusal(*rules.not_collectable)
    if order.state != "open":
        raise _closed(rules, order.state)
    if order.currency != platform.currency:
        raise Refusal(
            "currency_mismatch", f"The amount is in {order.currency}, and wallets are in {platform.currency}."
        )
    if order.payer is not None:
        require_proven(settings, order.payer)
        require_kyc(order.payer, order.level)
    if order.held is not None and order.held.frozen:
        # The ledger decides this under the account's lock; a freeze that is known before saves the call.
        raise Refusal("account_frozen", "The wallet is frozen: no money leaves it.")
    if order.amount is None:
        raise Refusal(rules.amount_required, "Name an amount: this code leaves it to the payer.")


async def prepare(
    platform: Platform, order: Order, payment_id: UUID, flagged: Audited | None = None
) -> Payment:
    """Return the payment of an order: amount and fee, the payer's limits, its events and audit records."""
    rules = KINDS[order.kind]
    if order.amount is None:
        raise LookupError(f"nobody said how much to pay for {order.object_id}")
    cost = rules.fee(platform, order, order.amount)
    source = order.source or (order.payer.account if order.payer is not None else None)
    if source is None:
        raise LookupError(f"a payment of the kind {order.kind} comes from nowhere")
    bearer = {"payee": order.payee.account, "payer": source, "source": source}[rules.bears]
    members = _members(order, payment_id, cost)
    object_id = order.object_id or str(payment_id)
    about = order.side(rules.about) or order.asker
    noted = audited(
        rules.event,
        order.actor or by_user(order.asker.id),
        {name: members[name] for name in rules.noted},
        user_id=about.id,
        object_id=object_id,
    )
    hearers = [user for user in map(order.side, rules.tells) if user is not None]
    told = {name: members[name] for name in rules.told}
    limited = order.payer if rules.limits is not None else None
    return Payment(
        id=payment_id,
        principal_id=order.asker.principal_id,
        kind=rules.posts or rules.event,
        source=source,
        target=order.payee.account,
        amount=order.amount - (cost if rules.bears == "source" else 0),
        currency=order.currency,
        identity=order.identity,
        payer=limited,
        limits=(
            payer_limits(platform.settings, limited, rules.limits)
            if limited and rules.limits
            else order.limits
        ),
        order=rules.causes,
        fee=cost,
        fee_payer=bearer,
        fee_account=await platform.fee_account() if cost else None,
        payable=order.payable_id,
        settler=None if order.payable_id is None else order.asker.id,
        told=tell_all(hearers, rules.event, told, object_id=object_id),
        audited=(noted,) if flagged is None else (flagged, noted),
        held=order.held,
        conditions=order.conditions,
        words=rules.words,
        payee_words=rules.payee_words,
    )


async def is_answered(database: Database, key: Key) -> bool:
    """Whether a payment was made under a key, so that the answer is stored."""
    return key.given and bool(await load_outcomes(database, [key.id]))


async def require_proven_payer(platform: Platform, payer: User, key: Key) -> None:
    """Raise Refusal `phone_not_proven` for a payment that is no payable's, unless it was made under its key before."""
    try:
        require_proven(platform.settings, payer)
    except Refusal:
        if not await is_answered(platform.database, key):
            raise


def _assess(settings: Settings, rules: Rules, order: Order) -> Audited | None:
    """Return the audit record of a high score, else None; raise `risk.Blocked` for too high a score."""
    if not rules.assessed or order.payer is None or order.amount is None:
        return None
    merchant = order.payee if order.payable_id is not None else None
    return risk.assess(settings, order.payer, order.amount, datetime.now(UTC), rules.event, merchant)


async def _found(find: Callable[[], Awaitable[Order]]) -> Order | None:
    try:
        return await find()
    except Refusal:
        return None


def _members(order: Order, payment_id: UUID, cost: int) -> dict[str, Any]:
    return {
        "id": order.object_id,
        "qr_id": str(order.payable_id),
        "transfer_id": str(payment_id),
        "type": order.kind.replace("_", ""),
        "amount_cents": order.amount,
        "fee_cents": cost,
    }


def _closed(rules: Rules, state: str) -> Refusal:
    words = rules.closed.get(state) or rules.closed.get("")
    return (
        Refusal("payable_not_open", f"The state is {state} already.", state=state)
        if words is None
        else Refusal(*words)
    )
