"""Refunds: reversals of payments, part by part, never more in all than was paid.

The ledger counts the rest to refund under its locks (`reversed_amounts`), so sixteen refunds at once are as safe as one
after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core import ids, metrics
from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, Effects, Leg, Operation, Posting, operation_id
from core.payables.pay import Key, require_proven_payer
from core.payables.payments import Paid
from core.wallets.books import wallet_of
from core.wallets.notifications import tell
from core.wallets.users import user_of

if TYPE_CHECKING:
    from datetime import datetime

    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

KIND: Final = "refunds.create"
# A payment has two legs, and two more with a fee; the first two move the amount from wallet to wallet.
_MAIN_LEGS: Final = 2
_PAYMENT_LEGS: Final = (2, 4)
# Payments for cash in hand are between two wallets, but moving the money back would not return the cash.
_CASH: Final = "cash."


class Refund(NamedTuple):
    """A refund as stored, in minor units; its id is that of its transfer."""

    id: UUID
    original_id: UUID
    amount: int
    currency: str
    created_at: datetime


class _Original(NamedTuple):
    """A payment that can be refunded: its number in the ledger, and its legs as posted, in minor units."""

    no: int
    legs: tuple[Leg, ...]
    currency: str

    @property
    def payer(self) -> str:
        return self.legs[0].account

    @property
    def receiver(self) -> str:
        return self.legs[1].account


async def refund(
    platform: Platform,
    original_id: UUID,
    amount: int,
    *,
    actor: str | None = None,
    refunder: User | None = None,
    key: str | None = None,
) -> Paid:
    """Give `amount` minor units of a payment back to its payer. The refund's id is the `transfer_id` of the answer.

    A `refunder` must be the payee who received the money, and owns the key. Without a
    `refunder` an administrator refunds any payment out of its payee's wallet, and the audit names `actor`.
    The fee stays with the platform unless REFUND_FEE_POLICY=return. Raises Refusal `original_not_found`,
    `original_invalid` (no payment: a top-up, cash, a refund), `not_owner_of_funds`, `exceeds_reversible`,
    `already_reversed`, `idempotency_conflict`, `phone_not_proven` (a refunder's), `insufficient_funds` (an
    administrator's: `merchant_insufficient_funds`).
    """
    original = await _original(platform, original_id)
    if refunder is not None and original.receiver != refunder.account:
        raise Refusal("not_owner_of_funds", "Only the payee of a payment can refund it.")
    receiver = refunder or await _owner_of(platform, original.receiver)
    principal_id = refunder.principal_id if refunder is not None else SYSTEM_PRINCIPAL
    refund_id = _refund_id(principal_id, key)
    if refunder is not None:
        await require_proven_payer(platform, refunder, Key(refund_id, key is not None))
    told = {"original": str(original_id), "amount_cents": amount}
    record = audited(
        KIND,
        actor or by_user(receiver.id),
        {**told, "refund": str(refund_id)},
        user_id=receiver.id,
        object_id=str(refund_id),
    )
    legs = original.legs if platform.settings.refund_fee_policy == "return" else original.legs[:_MAIN_LEGS]
    posting = Posting(
        id=refund_id,
        principal_id=principal_id,
        legs=tuple(Leg(leg.account, -leg.amount) for leg in legs),
        operation=Operation.REVERSAL,
        kind=KIND,
        amount=amount,
        administered=refunder is None,
        target_no=original.no,
        target_id=original_id,
        effects=Effects(
            told=tell(receiver, KIND, told, object_id=str(refund_id)),
            audited=(record,),
        ),
        unfrozen=True,
        identity=(KIND, str(original_id), amount),
    )
    outcome = await platform.ledger.poster.submit(posting)
    if not outcome.posted:
        refusal = outcome.refusal()
        if refusal.code == "insufficient_funds" and refunder is None and outcome.account == original.receiver:
            raise Refusal("merchant_insufficient_funds", refusal.detail)
        raise refusal
    platform.wake()
    if not outcome.replayed:
        metrics.REFUNDS.add("completed")
        metrics.REFUND_CENTS.add(original.currency, by=amount)
    return Paid(
        refund_id,
        wallet_of(original.receiver),
        wallet_of(original.payer) or "",
        amount,
        original.currency,
        outcome.replayed,
    )


async def find_refund(platform: Platform, refund_id: UUID, user: User) -> Refund:
    """Return a refund that `user` has made. Raises Refusal `refund_not_found`, and `forbidden` for others."""
    row = await platform.database.fetchrow(_sql.refund_of_id, refund_id, KIND)
    if row is None:
        raise Refusal("refund_not_found", "There is no such refund.")
    if row["giver"] != user.account:
        raise Refusal("forbidden", "Only the payee of a payment sees its refunds.")
    return Refund(row["id"], row["original_id"], row["amount"], row["currency"], row["recorded_at"])


async def _original(platform: Platform, original_id: UUID) -> _Original:
    row = await platform.database.fetchrow(_sql.refund_original, original_id)
    if row is None:
        raise Refusal("original_not_found", "There is no transfer with this id.")
    legs = tuple(map(Leg, row["accounts"], row["amounts"]))
    payment = (
        row["target"] is None
        and not row["kind"].startswith(_CASH)
        and len(legs) in _PAYMENT_LEGS
        and legs[0].amount == -legs[1].amount < 0
        and all(wallet_of(leg.account) is not None for leg in legs[:_MAIN_LEGS])
    )
    if not payment:
        raise Refusal("original_invalid", "Only payments from wallet to wallet can be refunded.")
    return _Original(row["no"], legs, row["currency"])


async def _owner_of(platform: Platform, account: str) -> User:
    row = await platform.database.fetchrow(_sql.user_of_wallet, UUID(wallet_of(account)))
    if row is None:
        raise Refusal("original_invalid", "The wallet that received this payment belongs to nobody.")
    return user_of(row)


def _refund_id(principal_id: int, key: str | None) -> UUID:
    if key is None:
        return ids.new_uuid()
    # The platform has keys for many purposes; a prefix keeps those of administrators apart.
    return operation_id(principal_id, key if principal_id != SYSTEM_PRINCIPAL else f"admin-refund:{key}")
