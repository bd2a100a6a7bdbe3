"""Bodies, queries and answers of the orders' surface. Bodies are lenient as in the contract: numbers may be texts."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from pydantic import BaseModel, Field

from core.payments.orders.amounts import number_of
from core.payments.orders.orders import MOST_NUMBER
from handlers.http.validation import parse_json

if TYPE_CHECKING:
    from core.payments.orders.orders import Order

Number = Annotated[int, Field(gt=0, le=MOST_NUMBER)]
Amount = Annotated[Decimal, Field(gt=0)]
# An exact number with up to eight decimals.
JsonNumber = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "number"})]
Time = Annotated[str, Meta(extra_json_schema={"type": "string", "format": "date-time"})]


class OrderBody(BaseModel):
    """An order of a merchant with an API key. Unknown fields are ignored."""

    order_id: Number = Field(description="The merchant's own number of the order, once for all.")
    amount: Amount = Field(description="The amount, with up to 8 decimals; a number or a text.")
    price: Amount = Field(description="The price, with up to 8 decimals; a number or a text.")
    alias: Annotated[str, Field(min_length=1)] = Field(description="The provider: stripe, paypal or adyen.")


class OrderOfCaller(OrderBody):
    """An order as a caller from a trusted network asks for it; with an API key the last two fields do not count."""

    subscription_id: Number | None = Field(
        None, description="The merchant's plan, of which a token is taken."
    )
    event_id: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="The caller's own id of the request, once for each order."
    )


class TrustedOrder(OrderBody):
    """An order with everything that a caller from a trusted network must send."""

    subscription_id: Number
    event_id: Annotated[str, Field(min_length=1, max_length=255)]


class PageQuery(BaseModel):
    """The part of a list that is wanted."""

    page: Annotated[int, Field(ge=1, le=2**53)] = Field(1, description="The number of the page.")
    limit: Annotated[int, Field(ge=1, le=100)] = Field(20, description="Orders on a page.")


class WebhookBody(BaseModel):
    """A webhook of the provider of links. Unknown fields are ignored."""

    payment_id: Number = Field(description="The number of the payment.")
    status: Annotated[str, Field(min_length=1)] = Field(
        description="`finished` says that it was paid, every other word that it never will be."
    )


class Pong(msgspec.Struct, frozen=True):
    """The answer of a service that is there."""

    ok: bool
    """Always true."""


class OrderPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """The payment of an order. An order that was there before has a `message`, and no `payment_url`."""

    message: str | UnsetType = UNSET
    """`payment already exists`."""
    payment_id: int
    """The number of the payment."""
    status: str
    """PAYMENT_PENDING, PAYMENT_FINISHED or PAYMENT_FAILED."""
    payment_url: str | UnsetType | None = UNSET
    """The page where the customer pays; null: there is none yet, and the tracking shows it once it is known."""


class OrderItem(msgspec.Struct, frozen=True):
    """A payment in a list."""

    payment_id: int
    """The number of the payment."""
    order_id: int
    """The merchant's number of the order."""
    provider: str
    """The alias of the provider."""
    amount: JsonNumber
    """The amount, exact."""
    status: str
    """PAYMENT_PENDING, PAYMENT_FINISHED or PAYMENT_FAILED."""
    created_at: Time
    """The time of the order."""


class OrderPage(msgspec.Struct, frozen=True):
    """A page of a merchant's payments, the newest first."""

    page: int
    """The number of the page."""
    limit: int
    """Orders on a page."""
    total: int
    """The number of all payments of the merchant."""
    has_next: bool
    """Whether there is a page after this one."""
    items: list[OrderItem]
    """The payments."""


class OrderShown(msgspec.Struct, frozen=True):
    """A payment."""

    payment_id: int
    """The number of the payment."""
    order_id: int
    """The merchant's number of the order."""
    provider: str
    """The alias of the provider."""
    amount: JsonNumber
    """The amount, exact."""
    price: JsonNumber
    """The price, exact."""
    status: str
    """PAYMENT_PENDING, PAYMENT_FINISHED or PAYMENT_FAILED."""
    created_at: Time
    """The time of the order."""


class TrackedEvent(msgspec.Struct, frozen=True):
    """Something that has happened to a payment."""

    event_type: str
    """The kind: EVENT_PAYMENT_CREATED and so on."""
    message: str | None
    """Lines for a person, each with its time."""
    payload: str | None
    """A JSON document in a text."""
    timestamp: Time
    """The time of it."""


class Tracking(msgspec.Struct, frozen=True):
    """Everything that has happened to a payment, the oldest first."""

    payment_id: int
    """The number of the payment."""
    payment_status: str
    """PAYMENT_PENDING, PAYMENT_FINISHED or PAYMENT_FAILED."""
    events: list[TrackedEvent]
    """The events."""


class WebhookResult(msgspec.Struct, frozen=True):
    """The effect of a webhook."""

    message: str
    """`payment updated`, `already processed` or `payment not found`."""
    payment_id: int | UnsetType = UNSET
    """The number of the payment that was updated."""
    status: int | UnsetType = UNSET
    """2: finished, 3: failed."""


class WebhookTaken(msgspec.Struct, frozen=True):
    """The answer to a webhook."""

    status: str
    """Always `ok`."""
    result: WebhookResult
    """The effect."""


def shown(order: Order) -> OrderShown:
    """Return an order as it is shown."""
    return OrderShown(
        order.number,
        order.order_id,
        order.alias,
        _number(order.amount, order.scale),
        _number(order.price, order.scale),
        order.status.name,
        order.created_at.isoformat(),
    )


def item(order: Order) -> OrderItem:
    """Return an order as lists show it."""
    one = shown(order)
    return OrderItem(one.payment_id, one.order_id, one.provider, one.amount, one.status, one.created_at)


def _number(units: int, scale: int) -> msgspec.Raw:
    return msgspec.Raw(number_of(units, scale).encode())


def parse_exactly(raw: bytes, content_type: str | None) -> Any:
    """Return the JSON value of a body, its numbers as decimals where they have a point. Raises as `parse_json` does."""
    parsed = parse_json(raw, content_type)
    if isinstance(parsed, dict) and any(isinstance(value, float) for value in parsed.values()):
        try:
            return json.loads(raw, parse_float=Decimal)
        except (ValueError, ArithmeticError):  # an exponent beyond all bounds
            return parsed
    return parsed
