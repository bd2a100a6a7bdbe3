"""Stripe's objects and events, as far as they tell of a payment (https://docs.stripe.com/api)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.inbox.verifying import moment_of
from core.provider_units import to_ledger
from core.providers import reading
from core.providers.protocol import Notice, RefundSight, Sight, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NAME: Final = "stripe"
ATTEMPT: Final = "attempt"
"""The key in an object's metadata under which our attempt stands."""


_PAID: Final = frozenset({"paid", "no_payment_required"})
# The intent behind a completed session waits for another way to pay: the bank has said no, days later.
_GIVEN_UP: Final = frozenset({"requires_payment_method", "canceled"})
# An invoice can be paid after it was written off; a payment that has failed is then paid, as ever.
_INVOICES: Final = {
    "draft": Standing.OPEN,
    "open": Standing.OPEN,  # Stripe charges again by itself
    "paid": Standing.PAID,
    "uncollectible": Standing.FAILED,
    "void": Standing.CANCELED,
}
_REFUNDED: Final = {"succeeded": True, "pending": None, "requires_action": None}


class Ref(msgspec.Struct):
    """An object of which only the id is of use."""

    id: str


class BalanceTransaction(msgspec.Struct):
    """A movement of Stripe's balance, in the currency of the balance."""

    id: str
    fee: int
    currency: str


class Charge(msgspec.Struct):
    """One charge of a card. `refunded` counts all refunds."""

    id: str
    amount: int = 0
    amount_refunded: int = 0
    currency: str = ""
    payment_intent: str | None = None
    balance_transaction: str | BalanceTransaction | None = None
    metadata: Any = None


class Intent(msgspec.Struct):
    """A payment intent."""

    id: str
    status: str = ""
    amount_received: int = 0
    currency: str = ""
    latest_charge: str | Charge | None = None
    metadata: Any = None


class Session(msgspec.Struct):
    """A checkout session: one visit to the hosted page, or to a payment link."""

    id: str
    status: str | None = None
    payment_status: str = "unpaid"
    amount_total: int | None = None
    currency: str | None = None
    url: str | None = None
    expires_at: int | None = None
    payment_intent: str | Intent | None = None
    subscription: str | Ref | None = None
    invoice: str | Ref | None = None
    payment_link: str | Ref | None = None
    metadata: Any = None


class Link(msgspec.Struct):
    """A payment link."""

    id: str
    url: str
    active: bool


class Refund(msgspec.Struct):
    """A refund."""

    id: str
    amount: int
    currency: str
    status: str | None = None
    payment_intent: str | None = None
    charge: str | None = None


class _Dispute(msgspec.Struct):
    id: str
    amount: int
    currency: str
    charge: str | None = None
    payment_intent: str | None = None


class _SubscriptionDetails(msgspec.Struct):
    subscription: str | Ref | None = None
    metadata: Any = None


class _Parent(msgspec.Struct):
    subscription_details: _SubscriptionDetails | None = None


class Invoice(msgspec.Struct):
    """An invoice. Its subscription moved into `parent` with the API of March 2025."""

    id: str
    amount_paid: int
    currency: str
    status: str | None = None
    billing_reason: str | None = None
    subscription: str | Ref | None = None
    subscription_details: _SubscriptionDetails | None = None
    parent: _Parent | None = None


class _Subscription(msgspec.Struct):
    id: str
    metadata: Any = None


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    data: _Data


def id_of(found: Any) -> str | None:
    """Return the id of an object that stands for itself or is given by its id."""
    return found if found is None or isinstance(found, str) else str(found.id)


def sight_of_session(session: Session, *, failed: bool = False) -> Sight:
    """Return what a session tells; `failed`: an event has said that its late payment has failed. Raises ValueError."""
    currency = None if session.currency is None else reading.currency(session.currency)
    amount = session.amount_total
    intent = session.payment_intent if isinstance(session.payment_intent, Intent) else None
    charge = intent.latest_charge if intent and isinstance(intent.latest_charge, Charge) else None
    return Sight(
        _standing(session, intent, failed=failed),
        provider_id=reading.name(session.id),
        amount=None if amount is None or currency is None else to_ledger(NAME, amount, currency),
        currency=currency,
        refunded=None
        if charge is None or currency is None
        else to_ledger(NAME, charge.amount_refunded, currency),
        fee=_fee(charge, currency),
        url=reading.page(session.url),
        expires_at=None if session.expires_at is None else moment_of(session.expires_at),
        word=reading.word(f"{session.status} {session.payment_status}"),
        names=reading.some_names(
            payment_intent=id_of(session.payment_intent),
            subscription=id_of(session.subscription),
            invoice=id_of(session.invoice),
            charge=charge.id if charge else None,
        ),
    )


def sight_of_link(link: Link, completed: Sequence[Session], *, open_visits: bool) -> Sight:
    """Return what a link tells, by its `completed` sessions. Raises ValueError.

    A visit that began before the link was closed may still be paid. Two paid visits, which the link's restriction is
    against, count as one payment of both amounts, so that the difference shows.
    """
    sights = [sight_of_session(session) for session in completed]
    paid = [sight for sight in sights if sight.standing is Standing.PAID]
    if sights:
        chosen = (paid or sights)[0]
        amounts = [sight.amount for sight in paid if sight.amount is not None]
        return chosen._replace(
            provider_id=reading.name(link.id),
            amount=sum(amounts) if paid else chosen.amount,
            url=reading.page(link.url),
            names={**chosen.names, "session": str(chosen.provider_id)},
        )
    waiting = link.active or open_visits
    return Sight(
        Standing.OPEN if waiting else Standing.CANCELED,
        provider_id=reading.name(link.id),
        url=reading.page(link.url),
        word="active" if link.active else "inactive",
    )


def sight_of_invoice(invoice: Invoice) -> Sight:
    """Return what an invoice tells of the renewal that it is for. Raises ValueError."""
    standing = _INVOICES.get(invoice.status or "")
    if standing is None:
        raise ValueError("the invoice has no status")
    currency = reading.currency(invoice.currency)
    return Sight(
        standing,
        provider_id=reading.name(invoice.id),
        amount=to_ledger(NAME, invoice.amount_paid, currency) if standing is Standing.PAID else None,
        currency=currency,
        word=reading.word(f"invoice {invoice.status}"),
        names=reading.some_names(invoice=invoice.id),
    )


def refund_sight(refund: Refund) -> RefundSight:
    """Return what a refund tells. A refund that has succeeded may fail later. Raises ValueError."""
    amount = to_ledger(NAME, refund.amount, reading.currency(refund.currency))
    done = _REFUNDED.get(refund.status or "pending", False)
    return RefundSight(done, reading.name(refund.id), amount, reading.word(refund.status))


def read_event(event_type: str, body: bytes) -> Notice | None:
    """Return what a verified event tells of a payment, None if it tells nothing. Raises ValueError."""
    reader = _READERS.get(event_type)
    return None if reader is None else reader(event_type, reading.decoded(body, _Event).data.object)


def _standing(session: Session, intent: Intent | None, *, failed: bool) -> Standing:
    if session.payment_status in _PAID:
        return Standing.PAID
    if session.status == "open":
        return Standing.OPEN
    if session.status == "expired":
        return Standing.EXPIRED
    if session.status != "complete":
        raise ValueError("the session has no status")
    return Standing.FAILED if failed or (intent and intent.status in _GIVEN_UP) else Standing.PROCESSING


def _fee(charge: Charge | None, currency: str | None) -> int | None:
    """Return the fee, where it is told in the payment's own currency."""
    movement = charge and charge.balance_transaction
    if not isinstance(movement, BalanceTransaction) or movement.currency.upper() != currency:
        return None
    return to_ledger(NAME, movement.fee, currency)


def _session_event(event_type: str, raw: msgspec.Raw) -> Notice | None:
    session = reading.decoded(bytes(raw), Session)
    link = id_of(session.payment_link)
    if link is not None and event_type == "checkout.session.expired":
        return None  # one visitor has left, and the link is there for the next one
    sight = sight_of_session(session, failed=event_type == "checkout.session.async_payment_failed")
    if link is not None:
        sight = sight._replace(
            provider_id=reading.name(link), url=None, names={**sight.names, "session": session.id}
        )
    return Notice(_names(link, session.id, _attempt(session.metadata)), sight)


def _intent_event(event_type: str, raw: msgspec.Raw) -> Notice | None:
    intent = reading.decoded(bytes(raw), Intent)
    attempt = _attempt(intent.metadata)
    paid = event_type == "payment_intent.succeeded"
    # A paid intent may have lost our name, as metadata can be changed; it is then found by its own.
    if attempt is None and not paid:
        return None
    currency = reading.currency(intent.currency)
    sight = Sight(
        Standing.PAID if paid else Standing.PROCESSING,
        amount=to_ledger(NAME, intent.amount_received, currency) if paid else None,
        currency=currency,
        word=reading.word(intent.status),
        names=reading.some_names(payment_intent=intent.id, charge=id_of(intent.latest_charge)),
    )
    return Notice(_names(intent.id, attempt), sight)


def _charge_event(_event_type: str, raw: msgspec.Raw) -> Notice | None:
    charge = reading.decoded(bytes(raw), Charge)
    currency = reading.currency(charge.currency)
    sight = Sight(
        Standing.PAID,
        amount=to_ledger(NAME, charge.amount, currency),
        currency=currency,
        refunded=to_ledger(NAME, charge.amount_refunded, currency),
        word="refunded",
        names=reading.some_names(payment_intent=charge.payment_intent, charge=charge.id),
    )
    return Notice(_names(charge.payment_intent, charge.id, _attempt(charge.metadata)), sight)


def _refund_event(_event_type: str, raw: msgspec.Raw) -> Notice | None:
    refund = reading.decoded(bytes(raw), Refund)
    # A refund exists for a paid payment only.
    sight = Sight(Standing.PAID, word=reading.word(f"refund {refund.status}"))
    return Notice(_names(refund.payment_intent, refund.charge), sight, refund_sight(refund))


def _dispute_event(event_type: str, raw: msgspec.Raw) -> Notice | None:
    """Read the two events at which money moves. An inquiry, which may stay without effect, is none of them."""
    dispute = reading.decoded(bytes(raw), _Dispute)
    currency = reading.currency(dispute.currency)
    amount = to_ledger(NAME, dispute.amount, currency)
    back = event_type == "charge.dispute.funds_reinstated"
    sight = Sight(
        Standing.PAID,
        word="dispute won" if back else "disputed",
        names=reading.some_names(dispute=dispute.id, charge=dispute.charge),
    )
    return Notice(
        _names(dispute.payment_intent, dispute.charge),
        sight,
        dispute=-amount if back else amount,
        dispute_currency=currency,
    )


def _invoice_event(event_type: str, raw: msgspec.Raw) -> Notice | None:
    invoice = reading.decoded(bytes(raw), Invoice)
    details = (invoice.parent and invoice.parent.subscription_details) or invoice.subscription_details
    subscription = id_of((details and details.subscription) or invoice.subscription)
    if subscription is None:
        return None
    first = invoice.billing_reason == "subscription_create"
    paid = event_type == "invoice.paid"
    if first and not paid:
        return None  # the hosted page lets the payer try again
    currency = reading.currency(invoice.currency)
    sight = Sight(
        Standing.PAID if paid else Standing.OPEN,  # Stripe charges again by itself
        amount=to_ledger(NAME, invoice.amount_paid, currency) if paid else None,
        currency=currency,
        word=reading.word(event_type),
        names=reading.some_names(subscription=subscription, invoice=invoice.id),
    )
    names = _names(subscription, _attempt(details and details.metadata))
    return Notice(names, sight, renewal=None if first else reading.name(invoice.id))


def _subscription_event(_event_type: str, raw: msgspec.Raw) -> Notice | None:
    subscription = reading.decoded(bytes(raw), _Subscription)
    sight = Sight(
        Standing.CANCELED, word="subscription ended", names=reading.some_names(subscription=subscription.id)
    )
    return Notice(_names(subscription.id, _attempt(subscription.metadata)), sight)


def _names(*values: str | None) -> list[str]:
    found = [reading.name(value) for value in values if value is not None]
    if not found:
        raise ValueError("the event names no object")
    return found


def _attempt(metadata: Any) -> str | None:
    found = metadata.get(ATTEMPT) if isinstance(metadata, dict) else None
    return found if isinstance(found, str) and found else None


_READERS: Final[Mapping[str, Callable[[str, msgspec.Raw], Notice | None]]] = {
    "checkout.session.completed": _session_event,
    "checkout.session.async_payment_succeeded": _session_event,
    "checkout.session.async_payment_failed": _session_event,
    "checkout.session.expired": _session_event,
    "payment_intent.succeeded": _intent_event,
    "payment_intent.processing": _intent_event,
    "charge.refunded": _charge_event,
    "refund.created": _refund_event,
    "refund.updated": _refund_event,
    "refund.failed": _refund_event,
    "charge.dispute.funds_withdrawn": _dispute_event,
    "charge.dispute.funds_reinstated": _dispute_event,
    "invoice.paid": _invoice_event,
    "invoice.payment_failed": _invoice_event,
    "customer.subscription.deleted": _subscription_event,
}
EVENTS: Final = frozenset(_READERS)
"""The types of the events that are read."""
