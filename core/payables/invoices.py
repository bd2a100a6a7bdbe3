"""Invoices: a merchant asks for money by a day, and the payer pays by hand or by a mandate.

pending -> paid | canceled (wallet contract, section 2). An overdue invoice can still be paid.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from core.audit import by_user
from core.errors import Refusal
from core.payables import demands
from core.payables.kinds import ISSUER_LEVEL
from core.payables.pay import Key, pay
from core.payables.payables import NewPayable
from core.payables.payments import Paid
from core.wallets import names
from core.wallets.books import wallet_of
from core.wallets.kyc import require_kyc
from core.wallets.merchants import require_seller

if TYPE_CHECKING:
    from uuid import UUID

    from core.payables.demands import Demand, Demands, Wanted
    from core.payables.kinds import Order
    from core.payables.payables import State, ToPay
    from core.platform import Platform
    from core.wallets.users import User


class Billed(NamedTuple):
    """The terms of an invoice: minor units, days until it is due, and the texts on it."""

    amount: int
    due_in_days: int
    reference: str | None
    description: str | None


async def create(platform: Platform, issuer: User, payer_phone: str, billed: Billed) -> Demand:
    """Issue an invoice; an unknown payer gets a user and a wallet.

    Raises Refusal `kyc_level_required`, `not_a_merchant`, `invoice_to_self`.
    """
    require_kyc(issuer, ISSUER_LEVEL)
    require_seller(issuer)
    payer = await platform.users.ensure(payer_phone, actor=by_user(issuer.id))
    if payer.id == issuer.id:
        raise Refusal("invoice_to_self", "An invoice goes to somebody else.")
    new = NewPayable(
        kind="invoice",
        currency=platform.currency,
        payee_id=issuer.id,
        payer_id=payer.id,
        amount=billed.amount,
        due_in=timedelta(days=billed.due_in_days),
        details={"reference": _shown(billed.reference), "description": billed.description},
    )
    return await demands.create(platform, new, issuer, payer, "invoices.create")


async def of_user(platform: Platform, user: User, wanted: Wanted | None = None) -> Demands:
    """Return the newest invoices to a user and of a user, 100 of each unless `wanted` says otherwise."""
    return await demands.of_user(platform, "invoice", user, wanted)


async def get(platform: Platform, user: User, invoice_id: UUID) -> Demand:
    """Return an invoice of one of its two sides. Raises Refusal `invoice_not_found`, `forbidden`."""
    demand = await demands.find(platform.database, "invoice", invoice_id)
    if demand is None:
        raise _not_found(invoice_id)
    if user.id not in {demand.payable.payee_id, demand.payable.payer_id}:
        raise Refusal("forbidden", "This invoice is between others.")
    return demand


async def pay_invoice(platform: Platform, payer: User, invoice_id: UUID, key: str | None) -> Paid:
    """Pay an invoice; the payment of an invoice that is paid already is returned again.

    Raises Refusal `invoice_not_found`, `not_your_invoice`, `invoice_canceled`, `invoice_expired`, and as
    `core.payables.pay.pay`.
    """

    async def find() -> Order:
        found = await platform.payables.to_pay(invoice_id)
        if found is None or found.payable.kind != "invoice" or found.payee is None:
            raise _not_found(invoice_id)
        if found.payable.payer_id != payer.id:
            raise Refusal("not_your_invoice", "This invoice is addressed to somebody else.")
        return order_of(found, payer, found.payee)

    try:
        return await pay(platform, "invoice", payer, Key.of(payer, key), find)
    except Refusal as refusal:
        if refusal.code != "payable_not_open":
            raise
        return await _settled(platform, payer, invoice_id, refusal.extra["state"])


def order_of(found: ToPay, payer: User, issuer: User) -> Order:
    """Return the order to pay an invoice, by its payer or by a mandate."""
    invoice_id = str(found.payable.id)
    return found.order(payer, issuer, None, (invoice_id,), object_id=invoice_id)


async def cancel(platform: Platform, issuer: User, invoice_id: UUID) -> State | None:
    """Take an invoice back, as its issuer; return None, or the state of an invoice that was over already.

    Raises Refusal `invoice_not_found`, `forbidden`.
    """
    demand = await get(platform, issuer, invoice_id)
    if demand.payable.payee_id != issuer.id:
        raise Refusal("forbidden", "Only the issuer can cancel an invoice.")
    return await demands.end(platform, demand, "canceled", issuer, "invoices.cancel")


async def _settled(platform: Platform, payer: User, invoice_id: UUID, state: str) -> Paid:
    """Return the payment of a paid invoice. Raises Refusal `invoice_expired`, `invoice_canceled`."""
    if state != "paid":
        word = "invoice_expired" if state == "expired" else "invoice_canceled"
        raise Refusal(word, "The invoice cannot be paid any more.")
    found = await platform.payables.to_pay(invoice_id)
    if found is None or found.payee is None or found.payable.transfer_id is None:
        raise LookupError(f"the invoice {invoice_id} is paid by nothing")
    invoice, account = found.payable, found.payee.account
    return Paid(
        found.payable.transfer_id,
        wallet_of(payer.account),
        wallet_of(account) or account,
        invoice.amount or 0,
        invoice.currency,
        replayed=True,
    )


def _not_found(invoice_id: UUID) -> Refusal:
    return Refusal("invoice_not_found", f"There is no invoice {invoice_id}.")


def _shown(reference: str | None) -> str | None:
    """Return a reference as it was given, None for one that shows nothing."""
    return None if reference and not names.is_seen(reference) else reference
