"""PayPal's objects and events, as far as they tell of a payment."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import msgspec

from core.provider_units import read_decimal
from core.providers import reading
from core.providers.protocol import Notice, RefundSight, Sight, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME: Final = "paypal"
APPROVED: Final = "APPROVED"

_OPEN: Final = frozenset({"CREATED", "SAVED", "PAYER_ACTION_REQUIRED", APPROVED})
_CAPTURES: Final[Mapping[str, Standing]] = {
    "COMPLETED": Standing.PAID,
    "PARTIALLY_REFUNDED": Standing.PAID,
    "REFUNDED": Standing.PAID,
    "PENDING": Standing.PROCESSING,
    "DECLINED": Standing.FAILED,
    "FAILED": Standing.FAILED,
}
_REFUNDS: Final = {"COMPLETED": True, "PENDING": None, "FAILED": False, "CANCELLED": False}
# The page for the payer: the newer and the older name of the link.
_PAGES: Final = frozenset({"payer-action", "approve"})


class Money(msgspec.Struct):
    """An amount, which comes as a text."""

    currency_code: str
    value: Decimal


class Link(msgspec.Struct):
    """A link to another object."""

    rel: str
    href: str


class _Breakdown(msgspec.Struct):
    paypal_fee: Money | None = None
    total_refunded_amount: Money | None = None


class _RelatedIds(msgspec.Struct):
    order_id: str | None = None
    capture_id: str | None = None


class _Supplement(msgspec.Struct):
    related_ids: _RelatedIds | None = None


class Capture(msgspec.Struct):
    """A capture: the money of an order."""

    id: str
    status: str
    amount: Money | None = None
    custom_id: str | None = None
    seller_receivable_breakdown: _Breakdown | None = None
    supplementary_data: _Supplement | None = None


class PayPalRefund(msgspec.Struct):
    """A refund of a capture. In an event the capture is behind the link `up`."""

    id: str
    status: str
    amount: Money | None = None
    custom_id: str | None = None
    seller_payable_breakdown: _Breakdown | None = None
    links: list[Link] = []


class _Payments(msgspec.Struct):
    captures: list[Capture] = []
    refunds: list[PayPalRefund] = []


class _Unit(msgspec.Struct):
    custom_id: str | None = None
    payments: _Payments | None = None


class PayPalOrder(msgspec.Struct):
    """An order."""

    id: str
    status: str
    update_time: str | None = None
    purchase_units: list[_Unit] = []
    links: list[Link] = []


class _Event(msgspec.Struct):
    resource: msgspec.Raw


def sight_of_order(order: PayPalOrder) -> Sight:
    """Return what an order tells. Raises ValueError."""
    payments = [unit.payments for unit in order.purchase_units if unit.payments is not None]
    captures = [capture for one in payments for capture in one.captures]
    url = next((link.href for link in order.links if link.rel in _PAGES), None)
    if captures:
        refunds = [refund for one in payments for refund in one.refunds if refund.status == "COMPLETED"]
        sight = _sight_of_captures(captures)
        given_back = sum(_amount(refund.amount)[0] for refund in refunds if refund.amount is not None)
        # The list of refunds may be missing; the capture's status alone then tells that there are some.
        known = bool(refunds) or sight.word not in {"REFUNDED", "PARTIALLY_REFUNDED"}
        return sight._replace(provider_id=reading.name(order.id), refunded=given_back if known else None)
    if order.status == "VOIDED":
        standing = Standing.CANCELED
    elif order.status in _OPEN:
        standing = Standing.OPEN
    else:
        raise ValueError("the order has an unknown status")
    return Sight(
        standing, provider_id=reading.name(order.id), url=reading.page(url), word=reading.word(order.status)
    )


def refund_sight(refund: PayPalRefund, asked: int | None = None) -> RefundSight:
    """Return what a refund tells; `asked` is its amount where it tells none. Raises ValueError."""
    if refund.status not in _REFUNDS:
        raise ValueError("the refund has an unknown status")
    amount = asked if refund.amount is None else _amount(refund.amount)[0]
    return RefundSight(_REFUNDS[refund.status], reading.name(refund.id), amount, refund.status)


def read_event(event_type: str, body: bytes) -> Notice | None:
    """Return what a verified event tells of a payment, None if it tells nothing. Raises ValueError."""
    if event_type.startswith("CHECKOUT.ORDER."):
        order = reading.decoded(_resource(body), PayPalOrder)
        own = [unit.custom_id for unit in order.purchase_units]
        return Notice(_names(order.id, *own), sight_of_order(order))
    if event_type in {"PAYMENT.CAPTURE.REFUNDED", "PAYMENT.CAPTURE.REVERSED"}:
        return _given_back(event_type, reading.decoded(_resource(body), PayPalRefund))
    if event_type.startswith("PAYMENT.CAPTURE."):
        capture = reading.decoded(_resource(body), Capture)
        related = capture.supplementary_data and capture.supplementary_data.related_ids
        order_id = related.order_id if related else None
        sight = _sight_of_captures([capture])
        if order_id is not None:
            sight = sight._replace(provider_id=reading.name(order_id))
        return Notice(_names(order_id, capture.id, capture.custom_id), sight)
    return None


def _given_back(event_type: str, refund: PayPalRefund) -> Notice:
    """Read a refund of ours, or a reversal, by which PayPal takes the money for the payer."""
    breakdown = refund.seller_payable_breakdown
    total = breakdown.total_refunded_amount if breakdown else None
    capture = next((link.href.rpartition("/")[2] for link in refund.links if link.rel == "up"), None)
    names = _names(capture, refund.custom_id)
    if event_type == "PAYMENT.CAPTURE.REVERSED":
        if refund.amount is None:
            raise ValueError("the reversal tells no amount")
        sight = Sight(Standing.PAID, word="reversed", names={"dispute": reading.name(refund.id)})
        amount, currency = _amount(refund.amount)
        return Notice(names, sight, dispute=amount, dispute_currency=currency)
    sight = Sight(
        Standing.PAID,
        refunded=None if total is None else _amount(total)[0],
        currency=None if total is None else _amount(total)[1],
        word="refunded",
        names=reading.some_names(capture=capture),
    )
    return Notice(names, sight, refund_sight(refund))


def _sight_of_captures(captures: Sequence[Capture]) -> Sight:
    """Return what the captures of an order tell: the best of them, with the money of all that are paid."""
    ranked = [Standing.PAID, Standing.PROCESSING, Standing.FAILED]
    if any(capture.status not in _CAPTURES for capture in captures):
        raise ValueError("a capture has an unknown status")
    best = min(captures, key=lambda capture: ranked.index(_CAPTURES[capture.status]))
    standing = _CAPTURES[best.status]
    same = [capture for capture in captures if _CAPTURES[capture.status] is standing]
    told = [_amount(capture.amount) for capture in same if capture.amount is not None]
    breakdown = best.seller_receivable_breakdown
    fee = breakdown.paypal_fee if breakdown else None
    return Sight(
        standing,
        amount=sum(amount for amount, _ in told) if told else None,
        currency=told[0][1] if told else None,
        fee=_amount(fee)[0] if fee and told and fee.currency_code == told[0][1] else None,
        word=reading.word(best.status),
        names=reading.some_names(capture=best.id),
    )


def _amount(money: Money) -> tuple[int, str]:
    currency = reading.currency(money.currency_code)
    return read_decimal(NAME, money.value, currency), currency


def _names(*values: str | None) -> list[str]:
    found = [reading.name(value) for value in values if value]
    if not found:
        raise ValueError("the event names no object")
    return found


def _resource(body: bytes) -> bytes:
    return bytes(reading.decoded(body, _Event).resource)
