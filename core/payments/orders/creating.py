"""Creating the payment of an order: once for each merchant and order, against a token, at the provider of an alias."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from core.database import queries
from core.errors import Refusal
from core.payments.flow import MOST_WAIT_SECONDS
from core.payments.orders.amounts import SCALE, minor_of, text_of
from core.payments.orders.orders import SURFACE, Status, status_of, was_unreachable
from core.payments.orders.tokens import take_token
from core.payments.payments import NewPayment
from core.payments.rules import NO_CURRENCY
from core.providers import links
from core.providers.protocol import Method
from core.providers.stripe_objects import NAME as STRIPE

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection
    from core.payments.flow import Payments
    from core.payments.payments import Payment
    from core.settings import Settings

_sql = queries(__name__)

SOURCE: Final = "payments:create"
"""The contract's word for the request in the audit."""
# A repetition waits for the first call, whose end it tells, no longer than the old service took over its own call.
PATIENCE_SECONDS: Final = min(links.TOTAL_SECONDS, MOST_WAIT_SECONDS)


class NewOrder(NamedTuple):
    """An order as a merchant asks for it; `amount` and `price` are in units of 10 ** -8.

    A caller through the edge has no `plan_id` and no `event_id`: any subscription of the merchant does, and the event
    gets an id of its own.
    """

    merchant_id: int
    order_id: int
    amount: int
    price: int
    alias: str
    plan_id: int | None = None
    event_id: str | None = None


class Placed(NamedTuple):
    """The answer to a creation. A `replayed` one repeats the payment of an order that was there."""

    number: int
    payment: Payment
    replayed: bool

    @property
    def status(self) -> Status:
        """The contract's status."""
        return status_of(self.payment.state)


async def create_order(payments: Payments, settings: Settings, asked: NewOrder) -> Placed:
    """Create the payment of an order and ask for its link, once; a repetition gets the first payment, whatever it asks.

    Raises Refusal `alias_not_found`, `subscription_not_active`, `quota_exceeded`, `event_used`; `provider_declined` and
    `provider_unreachable` for a payment that has certainly failed; `invalid_request`, `no_provider`.
    """
    row = await payments.database.fetchrow(_sql.order_to_make, asked.merchant_id, asked.order_id, asked.alias)
    if row is None:
        raise LookupError("a query of values has a row")
    if row["known"] is not None:
        return await _again(payments, row["known"], row["payment_id"])
    if row["fresh"] is None:
        raise Refusal("alias_not_found", "There is no provider of this alias.")
    number: int = row["fresh"]
    new = _new_payment(payments, settings, asked, number, row["principal_id"])
    try:
        created = await payments.create(new, beside=partial(_store, number=number, asked=asked))
    except Refusal as refusal:
        if refusal.code != "idempotency_conflict":
            raise
        # Another call for the order has been quicker. Its payment has another number.
        row = await payments.database.fetchrow(_sql.order_of_merchant, asked.merchant_id, asked.order_id)
        if row is None:
            raise
        return await _again(payments, row["known"], row["payment_id"])
    _require_open(created.payment)
    return Placed(number, created.payment, False)


async def _again(payments: Payments, number: int, payment_id: UUID) -> Placed:
    return Placed(number, await payments.settled(payment_id, seconds=PATIENCE_SECONDS), True)


def _new_payment(
    payments: Payments, settings: Settings, asked: NewOrder, number: int, principal_id: int | None
) -> NewPayment:
    provider, currency = _provider_of(payments, settings, asked.alias)
    by_price = currency != NO_CURRENCY and settings.orders_charge == "price"
    return NewPayment(
        surface=SURFACE,
        caller=str(asked.merchant_id),
        request_id=str(asked.order_id),
        amount=minor_of(asked.price if by_price else asked.amount, currency),
        scale=SCALE if currency == NO_CURRENCY else None,
        currency=currency,
        method=Method.PAYMENT_LINK,
        title=f"Order {asked.order_id}",
        reference=str(number),
        provider=provider,
        principal_id=principal_id,
        metadata={
            links.MERCHANT: str(asked.merchant_id),
            links.ALIAS: asked.alias,
            "order_id": str(asked.order_id),
            "amount": text_of(asked.amount, SCALE),
            "price": text_of(asked.price, SCALE),
        },
    )


def _provider_of(payments: Payments, settings: Settings, alias: str) -> tuple[str, str]:
    """Return the provider behind an alias, and the currency in which it is asked.

    Stripe itself can only be asked where the settings say which currency orders are in.
    """
    if alias == STRIPE and STRIPE in payments.providers and settings.orders_currency != NO_CURRENCY:
        return STRIPE, settings.orders_currency
    return links.NAME, NO_CURRENCY


async def _store(connection: Connection, payment_id: UUID, *, number: int, asked: NewOrder) -> None:
    """Take the token and write the order and its audit, or nothing of all."""
    plan_id = await take_token(connection, asked.merchant_id, asked.plan_id)
    audited = await connection.fetchval(
        _sql.store_order,
        number,
        payment_id,
        asked.merchant_id,
        asked.order_id,
        plan_id,
        asked.alias,
        asked.amount,
        asked.price,
        SCALE,
        asked.event_id or str(uuid4()),
        SOURCE,
        links.NAME,
    )
    if audited is None:
        raise Refusal("event_used", "This event_id was used before for another order.", field="event_id")


def _require_open(payment: Payment) -> None:
    """Raise Refusal for a payment that is known to have failed; one whose end is not known is open."""
    if status_of(payment.state) is not Status.PAYMENT_FAILED:
        return
    if was_unreachable(payment.latest.error):
        raise Refusal("provider_unreachable", "The provider could not be reached. The payment has failed.")
    raise Refusal("provider_declined", "The provider has refused the payment.")
