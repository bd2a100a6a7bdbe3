"""Codes paid by card: somebody without a wallet pays the provider, and the platform pays the payee at the same moment.

The call of the ledger that collects the provider's money also moves it on to the payee, by the rules of the code's
kind: it locks the code, marks it as paid, keeps the payee's fee back and tells of it. So a code is paid once, be it
from a wallet or by card. Where it cannot be paid any more when the money comes, the money goes back to the card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from core.database import queries
from core.errors import Refusal
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payables.pay import check, prepare
from core.payables.payables import to_pay_of
from core.payments import refunds
from core.payments.accounts import collected_account
from core.payments.payments import NewPayment, find_by_key
from core.providers.protocol import Method

if TYPE_CHECKING:
    from core.database import Connection
    from core.ledger.items import Outcome, Posting
    from core.payables.codes import Offer
    from core.payables.kinds import Order
    from core.payables.payables import ToPay
    from core.payments.flow import Payments
    from core.payments.payments import Payment
    from core.payments.rules import Facts
    from core.platform import Platform

_sql = queries("core.payables.payables")
_log = structlog.get_logger(__name__)

SURFACE: Final = "codes"


async def start(payments: Payments, platform: Platform, offer: Offer, key: str, back: str) -> Payment:
    """Ask for a payment of an offer that names its amount, once under `key`; `back` is where the payer comes back to.

    Raises Refusal as `core.payables.pay.check`, `payable_not_open` for an offer without an amount, and `no_provider`.
    """
    if offer.amount is None:
        raise Refusal("payable_not_open", "A code that leaves the amount open is not paid by card.")
    check(platform, _order(offer.found, offer.amount, key))
    new = NewPayment(
        surface=SURFACE,
        caller=str(offer.found.payable.id),
        request_id=key,
        amount=offer.amount,
        currency=offer.currency,
        method=Method.HOSTED_CARD,
        title=offer.payee.name,
        reference=offer.code,
        success_url=back,
        cancel_url=back,
        # The provider is asked to let nobody pay once the code's time is over.
        expires_at=offer.expires_at,
    )
    return (await payments.create(new)).payment


async def show(payments: Payments, offer: Offer, key: str) -> Payment | None:
    """Return the payment of an offer under a key, or None."""
    return await find_by_key(payments.database, SURFACE, str(offer.found.payable.id), key)


async def return_of(payments: Payments, payment: Payment) -> str | None:
    """Return the state of the latest refund that gives a payment's money back, None where the code was paid.

    It is `done` as well once the money was given back at the provider itself, or the payer's bank took it.
    """
    found = await refunds.latest_of(payments, payment.id, refunds.RETURNED)
    if found is None:
        return None
    facts = payment.attempt(found.attempt_id).facts
    return refunds.DONE if facts.received <= facts.refunded + facts.disputed else found.state


class CardMoney:
    """The money of codes that are paid by card (`core.payments.onward.Onward`)."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def posting(self, connection: Connection, payment: Payment, facts: Facts) -> Posting | None:
        """Return the posting that pays the code, None where it cannot be paid any more, or with so much."""
        if facts.received < payment.amount or facts.refunded:
            return None
        row = await connection.fetchrow(_sql.payables_to_pay, [None], [payment.details.reference])
        found = None if row is None else to_pay_of(row)
        if found is None or found.payee is None or str(found.payable.id) != payment.caller:
            return None
        order = _order(found, payment.amount, str(payment.id))
        try:
            check(self._platform, order)
        except Refusal as refusal:
            _log.info("cards.code_not_payable", payment=str(payment.id), code=refusal.code)
            return None
        prepared = await prepare(self._platform, order, operation_id(SYSTEM_PRINCIPAL, f"card:{payment.id}"))
        return prepared._replace(settler=None).posting()

    async def settle(self, connection: Connection, payment: Payment, outcome: Outcome | None) -> None:
        """Give the money back where the code was not paid, in the transaction that has collected it."""
        if outcome is None or not outcome.posted:
            code = None if outcome is None else outcome.kind.code
            _log.warning("cards.money_goes_back", payment=str(payment.id), code=code)
            await refunds.ask_later(connection, payment.id, refunds.RETURNED, "caller")


def _order(found: ToPay, amount: int, key: str) -> Order:
    payable, payee = found.payable, found.payee
    if payee is None:
        raise LookupError(f"the payable {payable.id} has no payee")
    object_id = str(payable.id) if payable.kind == "link" else None
    identity: tuple[Any, ...] = ("card", key)
    order = found.order(payee, payee, amount, identity, object_id)
    return order._replace(payer=None, source=collected_account(payable.currency), actor=f"card:{key}"[:200])
