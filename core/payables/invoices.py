"""Invoices: a merchant asks for money by a day, and the payer pays by hand or by a mandate.

pending -> paid | canceled (wallet contract, section 2). An invoice that is overdue can still be paid.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from core import ids
from core.audit import audited, by_user
from core.errors import Refusal
from core.ledger.items import operation_id
from core.payables import demands
from core.payables.limits import FUNDS_FIRST, payer_limits
from core.payables.payables import NewPayable
from core.payables.payments import Paid, Payment
from core.payables.risk import assess
from core.wallets.books import wallet_of
from core.wallets.notifications import tell_all

if TYPE_CHECKING:
    from uuid import UUID

    from core.payables.demands import Claim, Claims
    from core.payables.payables import Payable, State
    from core.platform import Platform
    from core.wallets.users import User

# Who issues invoices has been identified, whatever the settings say of codes (contract, section 3).
ISSUER_LEVEL: Final = 1


class Billed(NamedTuple):
    """What an invoice is over: minor units, days until it is due, and what stands on it."""

    amount: int
    due_in_days: int
    reference: str | None
    description: str | None


async def create(platform: Platform, issuer: User, payer_phone: str, billed: Billed) -> Claim:
    """Issue an invoice; a payer who is not known gets a wallet.

    Raises Refusal `kyc_level_required`, `not_a_merchant`, `invoice_to_self`.
    """
    if issuer.kyc_level < ISSUER_LEVEL:
        raise Refusal("kyc_level_required", f"This takes KYC level {ISSUER_LEVEL}.")
    if not issuer.is_merchant:
        raise Refusal("not_a_merchant", "Only merchants issue invoices.")
    if payer_phone == issuer.phone:
        raise Refusal("invoice_to_self", "An invoice goes to somebody else.")
    payer = await platform.users.ensure(payer_phone, actor=by_user(issuer.id))
    new = NewPayable(
        kind="invoice",
        currency=platform.currency,
        payee_id=issuer.id,
        payer_id=payer.id,
        amount=billed.amount,
        due_at=datetime.now(UTC) + timedelta(days=billed.due_in_days),
        details={"reference": billed.reference, "description": billed.description},
    )
    return await demands.create(platform, new, issuer, payer, "invoices.create")


async def of_user(platform: Platform, user: User) -> Claims:
    """Return the newest invoices to and of a user."""
    return await demands.of_user(platform, "invoice", user)


async def get(platform: Platform, user: User, invoice_id: UUID) -> Claim:
    """Return an invoice of one of its two sides. Raises Refusal `invoice_not_found`, `forbidden`."""
    claim = await demands.find(platform.database, "invoice", invoice_id)
    if claim is None:
        raise _not_found(invoice_id)
    if user.id not in {claim.payable.payee_id, claim.payable.payer_id}:
        raise Refusal("forbidden", "This invoice is between others.")
    return claim


async def pay(platform: Platform, payer: User, invoice_id: UUID, key: str | None) -> Paid:
    """Pay an invoice; one that is paid already returns its payment, whoever has made that.

    Raises Refusal `invoice_not_found`, `not_your_invoice`, `invoice_canceled`, `invoice_expired`, `risk_blocked`,
    `idempotency_conflict`, and what stands in the way of the money.
    """
    found = await platform.payables.to_pay(invoice_id)
    if found is None or found.payable.kind != "invoice" or found.payee is None:
        raise _not_found(invoice_id)
    invoice, issuer = found.payable, found.payee
    if invoice.payer_id != payer.id:
        raise Refusal("not_your_invoice", "This invoice is for somebody else.")
    if key is None and invoice.state != "open":
        return await _settled(platform, payer, issuer, invoice, invoice.state)
    if invoice.state == "open":
        await assess(
            platform.database,
            platform.settings,
            payer,
            _amount(invoice),
            operation="invoices.pay",
            merchant=issuer,
        )
    transfer_id = ids.new_uuid() if key is None else operation_id(payer.principal_id, key)
    try:
        return await platform.pay(payment(platform, payer, issuer, invoice, transfer_id, by_user(payer.id)))
    except Refusal as refusal:
        if refusal.code != "payable_not_open":
            raise
        return await _settled(platform, payer, issuer, invoice, refusal.extra["state"])


def payment(
    platform: Platform, payer: User, issuer: User, invoice: Payable, transfer_id: UUID, actor: str
) -> Payment:
    """Return the payment of an invoice, by its payer's hand or by a mandate."""
    invoice_id, amount = str(invoice.id), _amount(invoice)
    data = {"id": invoice_id, "transfer_id": str(transfer_id), "amount_cents": amount}
    return Payment(
        id=transfer_id,
        principal_id=payer.principal_id,
        kind="invoices.pay",
        source=payer.account,
        target=issuer.account,
        amount=amount,
        currency=invoice.currency,
        identity=(invoice_id,),
        payer=payer,
        limits=payer_limits(platform.settings, payer),
        order=FUNDS_FIRST,
        payable=invoice.id,
        settler=payer.id,
        told=tell_all((issuer, payer), "invoices.pay", data, object_id=invoice_id),
        audited=(audited("invoices.pay", actor, data, user_id=issuer.id, object_id=invoice_id),),
    )


async def cancel(platform: Platform, issuer: User, invoice_id: UUID) -> State | None:
    """Take an invoice back, as its issuer; None, or the state that it was in already.

    Raises Refusal `invoice_not_found`, `forbidden`.
    """
    claim = await get(platform, issuer, invoice_id)
    if claim.payable.payee_id != issuer.id:
        raise Refusal("forbidden", "Only its issuer can cancel an invoice.")
    return await demands.end(platform, claim, "canceled", issuer, "invoices.cancel")


async def _settled(platform: Platform, payer: User, issuer: User, invoice: Payable, state: str) -> Paid:
    """Return the payment that an invoice was paid by, or raise for one that can be paid no more."""
    if state != "paid":
        word = "invoice_expired" if state == "expired" else "invoice_canceled"
        raise Refusal(word, "The invoice cannot be paid any more.")
    now = await platform.payables.by_id(invoice.id)
    if now is None or now.transfer_id is None:
        raise LookupError(f"the invoice {invoice.id} is paid by nothing")
    target = wallet_of(issuer.account) or issuer.account
    return Paid(
        now.transfer_id, wallet_of(payer.account), target, _amount(invoice), invoice.currency, replayed=True
    )


def _amount(invoice: Payable) -> int:
    if invoice.amount is None:
        raise LookupError(f"the invoice {invoice.id} has no amount")
    return invoice.amount


def _not_found(invoice_id: UUID) -> Refusal:
    return Refusal("invoice_not_found", f"There is no invoice {invoice_id}.")
