"""Stripe: hosted checkout and payment links, once or repeated, over Stripe's own library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from core.provider_units import from_ledger
from core.providers import reading, stripe_objects
from core.providers.calling import CANNOT_TELL, Caller, never, unreadable, unsupported
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Method,
    Notice,
    Order,
    RefundSight,
    Sight,
    Standing,
    UnknownError,
    UnsentError,
)
from core.providers.stripe_objects import ATTEMPT, NAME, Invoice, Link, Refund, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import stripe

    from core.errors import Refusal
    from core.settings import Settings

_Kind = TypeVar("_Kind", bound=msgspec.Struct)

LINK_PREFIX: Final = "plink_"
INVOICE_PREFIX: Final = "in_"
"""The payments of an order that repeats are named by their invoices, but for the first."""
# Stripe's bounds (https://docs.stripe.com/api/metadata, .../checkout/sessions/create).
MOST_METADATA: Final = 40
MOST_METADATA_KEY: Final = 40
MOST_METADATA_VALUE: Final = 500
MOST_REFERENCE: Final = 200
MOST_TITLE: Final = 250
# A link is paid once, so one page of its completed visits has them all; a page of open ones is closed at a time.
LISTED: Final = 10

_EXPANDED: Final = "payment_intent.latest_charge.balance_transaction"
_REFUSES_US: Final = frozenset({401, 403})
_NOT_DONE: Final = frozenset({400, 402, 404})


class Stripe:
    """Stripe as a `core.providers.protocol.Provider`. The library's client is made at the first call."""

    name = NAME
    repeats = True

    def __init__(self, secret_key: str, caller: Caller, *, landing_url: str = "") -> None:
        self._secret_key = secret_key
        self._caller = caller
        self._landing_url = landing_url
        self._made: stripe.StripeClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> Stripe | None:
        """Return the provider of STRIPE_SECRET_KEY, or None where it is unset."""
        if not settings.stripe_secret_key:
            return None
        caller = Caller(
            NAME, settings.stripe_api_base, total_seconds=float(settings.stripe_http_timeout_seconds)
        )
        return cls(settings.stripe_secret_key, caller, landing_url=settings.public_base_url)

    async def create(self, order: Order) -> Sight:
        """Ask for a session of the hosted page, or for a payment link that can be paid once."""
        if order.method is Method.PHONE:
            raise unsupported(NAME, "asks nobody by phone")
        try:
            amount = from_ledger(NAME, order.amount, order.currency)
        except ValueError as error:
            problem = unsupported(NAME, f"cannot take the amount: {error}")
        else:
            make = self._link if order.method is Method.PAYMENT_LINK else self._session
            return await make(order, amount)
        raise problem

    async def look(self, handle: Handle) -> Sight:
        """Ask for the session, for the invoice of a renewal, or for the link and its visits.

        Never ABSENT: an id that we were given does not vanish, so that Stripe does not know it under another key only.
        """
        provider_id = _known(handle)
        if provider_id.startswith(LINK_PREFIX):
            return await self._look_at_link(provider_id)
        try:
            if provider_id.startswith(INVOICE_PREFIX):
                return _invoice_sight(
                    await self._ask(self._client.v1.invoices.retrieve_async(provider_id), Invoice)
                )
            return await self._look_at_session(provider_id)
        except DeclinedError as error:
            missing = error.word
        raise UnknownError(f"{NAME} does not show the payment: {missing}.", code=CANNOT_TELL)

    async def cancel(self, handle: Handle) -> Sight:
        """Expire the session, void the invoice, or close the link and expire its open visits.

        A payment that came first stands.
        """
        provider_id = _known(handle)
        if provider_id.startswith(LINK_PREFIX):
            return await self._close_link(handle, provider_id)
        try:
            if provider_id.startswith(INVOICE_PREFIX):
                return _invoice_sight(
                    await self._ask(self._client.v1.invoices.void_invoice_async(provider_id), Invoice)
                )
            expired = await self._ask(self._client.v1.checkout.sessions.expire_async(provider_id), Session)
        except DeclinedError:
            return await self.look(handle)
        sight = _sight(expired)
        return sight._replace(standing=Standing.CANCELED) if sight.standing is Standing.EXPIRED else sight

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back `amount` of the payment intent, or of the invoice's."""
        intent = handle.names.get("payment_intent") or await self._intent_of(handle)
        params: Any = {
            "payment_intent": intent,
            "amount": from_ledger(NAME, amount, handle.order.currency),
            "metadata": {ATTEMPT: str(handle.order.attempt)},
        }
        options: Any = {"idempotency_key": key}
        refund = await self._ask(self._client.v1.refunds.create_async(params, options), Refund)
        try:
            return stripe_objects.refund_sight(refund)
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read an event of Stripe."""
        return stripe_objects.read_event(event_type, body)

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()

    async def _session(self, order: Order, amount: int) -> Sight:
        params: Any = {
            "mode": "subscription" if order.recurrence else "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": _price(order, amount, {"product_data": {"name": _title(order)}}),
                }
            ],
            "client_reference_id": order.reference[:MOST_REFERENCE],
            "metadata": _metadata(order),
            **_inner_metadata(order),
        }
        # Without an address of the caller the payer lands on our own page, and not on a route that takes webhooks only.
        for name, url in (("success_url", order.success_url), ("cancel_url", order.cancel_url)):
            if url or self._landing_url:
                params[name] = url or self._landing_url
        options: Any = {"idempotency_key": order.key}
        return _sight(
            await self._ask(self._client.v1.checkout.sessions.create_async(params, options), Session)
        )

    async def _link(self, order: Order, amount: int) -> Sight:
        """Make product, price and link, each under a key of its own, so that the whole can be repeated."""
        product_params: Any = {"name": _title(order)}
        product = await self._ask(
            self._client.v1.products.create_async(product_params, _keyed(order, "product")),
            stripe_objects.Ref,
        )
        price_params: Any = _price(order, amount, {"product": product.id})
        price = await self._ask(
            self._client.v1.prices.create_async(price_params, _keyed(order, "price")), stripe_objects.Ref
        )
        params: Any = {
            "line_items": [{"price": price.id, "quantity": 1}],
            "restrictions": {"completed_sessions": {"limit": 1}},
            "metadata": _metadata(order),
            **_inner_metadata(order),
        }
        if url := order.success_url or self._landing_url:
            params["after_completion"] = {"type": "redirect", "redirect": {"url": url}}
        link = await self._ask(
            self._client.v1.payment_links.create_async(params, _keyed(order, "link")), Link
        )
        return _link_sight(link, [], open_visits=False)._replace(
            names={"product": product.id, "price": price.id}
        )

    async def _look_at_session(self, provider_id: str) -> Sight:
        params: Any = {"expand": [_EXPANDED]}
        return _sight(
            await self._ask(self._client.v1.checkout.sessions.retrieve_async(provider_id, params), Session)
        )

    async def _look_at_link(self, provider_id: str) -> Sight:
        try:
            completed = await self._visits(provider_id, "complete")
            link = await self._ask(self._client.v1.payment_links.retrieve_async(provider_id), Link)
            waiting = not (completed or link.active) and bool(await self._visits(provider_id, "open"))
        except DeclinedError as error:
            missing = error.word
        else:
            return _link_sight(link, completed, open_visits=waiting)
        raise UnknownError(f"{NAME} does not show the link: {missing}.", code=CANNOT_TELL)

    async def _close_link(self, handle: Handle, provider_id: str) -> Sight:
        params: Any = {"active": False}
        await self._ask(self._client.v1.payment_links.update_async(provider_id, params), Link)
        for visit in await self._visits(provider_id, "open"):
            try:
                await self._ask(self._client.v1.checkout.sessions.expire_async(visit.id), Session)
            except DeclinedError:
                continue  # it was paid or has expired just now, as the look below shows
        return await self.look(handle)

    async def _visits(self, link: str, status: str) -> list[Session]:
        params: Any = {
            "payment_link": link,
            "status": status,
            "limit": LISTED,
            "expand": [f"data.{_EXPANDED.rpartition('.')[0]}"],
        }
        return (await self._ask(self._client.v1.checkout.sessions.list_async(params), _Page)).data

    async def _intent_of(self, handle: Handle) -> str:
        names = (await self.look(handle)).names
        if "payment_intent" in names:
            return names["payment_intent"]
        if "invoice" in names:
            params: Any = {"invoice": names["invoice"], "status": "paid", "limit": 1}
            paid = await self._ask(self._client.v1.invoice_payments.list_async(params), _InvoicePayments)
            if paid.data and paid.data[0].payment.payment_intent:
                return paid.data[0].payment.payment_intent
        raise DeclinedError("Stripe has no payment to give back.", code="provider_payment_absent")

    @property
    def _client(self) -> stripe.StripeClient:
        if self._made is None:
            from core.providers.stripe_wire import client  # noqa: PLC0415 - 0.2 s, for those who have a key

            self._made = client(self._secret_key, self._caller)
        return self._made

    async def _ask(self, call: Awaitable[Any], kind: type[_Kind]) -> _Kind:
        """Return the object that a call of the library answers."""
        from stripe import StripeError  # noqa: PLC0415 - imported already, by the call

        problem: Refusal
        try:
            return msgspec.convert((await call).to_dict(), kind)
        except StripeError as error:
            problem = _problem(error)
        except (msgspec.ValidationError, ValueError, RecursionError):
            problem = unreadable(NAME)
        raise problem


class _Page(msgspec.Struct):
    data: list[Session]


class _Paid(msgspec.Struct):
    payment_intent: str | None = None


class _InvoicePayment(msgspec.Struct):
    payment: _Paid


class _InvoicePayments(msgspec.Struct):
    data: list[_InvoicePayment]


def _problem(error: stripe.StripeError) -> Refusal:
    """Return what an error of the library means. Its text is left out: it may quote an answer, or a part of a key."""
    status, word = error.http_status, reading.word(error.code or type(error).__name__)
    if error.code == "rate_limit":
        return UnsentError(f"{NAME} has had too many calls.", code="provider_busy")
    if status in _REFUSES_US:
        return UnsentError(f"{NAME} refuses our credentials.", code="provider_credentials")
    if type(error).__name__ == "IdempotencyError":
        # An earlier call under this key was another one, and may have been done.
        return UnknownError(f"{NAME} knows the key from another call.", code="provider_key_reused")
    if status in _NOT_DONE and error.error is not None:
        return DeclinedError(f"{NAME} has declined.", word=word)
    return UnknownError(f"{NAME} has answered with status {status}.")


def _sight(session: Session) -> Sight:
    try:
        return stripe_objects.sight_of_session(session)
    except ValueError:
        problem = unreadable(NAME)
    raise problem


def _invoice_sight(invoice: Invoice) -> Sight:
    try:
        return stripe_objects.sight_of_invoice(invoice)
    except ValueError:
        problem = unreadable(NAME)
    raise problem


def _link_sight(link: Link, completed: list[Session], *, open_visits: bool) -> Sight:
    try:
        return stripe_objects.sight_of_link(link, completed, open_visits=open_visits)
    except ValueError:
        problem = unreadable(NAME)
    raise problem


def _known(handle: Handle) -> str:
    if handle.provider_id is None:
        never(NAME, "finds no payment without its id; repeat the order under its key")
    return handle.provider_id


def _keyed(order: Order, what: str) -> Any:
    return {"idempotency_key": f"{order.key}:{what}"}


def _title(order: Order) -> str:
    return order.title[:MOST_TITLE]


def _price(order: Order, amount: int, product: dict[str, Any]) -> dict[str, Any]:
    price = {"currency": order.currency.lower(), "unit_amount": amount, **product}
    if order.recurrence:
        interval, every = order.recurrence
        price["recurring"] = {"interval": interval, "interval_count": every}
    return price


def _metadata(order: Order) -> dict[str, str]:
    """Return the caller's metadata, as far as Stripe takes it, and our attempt, which wins."""
    kept = [
        (key, value)
        for key, value in order.metadata.items()
        if len(key) <= MOST_METADATA_KEY and len(value) <= MOST_METADATA_VALUE and not {"[", "]"} & set(key)
    ]
    return dict(kept[:MOST_METADATA]) | {ATTEMPT: str(order.attempt)}


def _inner_metadata(order: Order) -> dict[str, Any]:
    """Return the metadata of the intent or the subscription: our attempt alone.

    An intent's `metadata.account` names an account to be paid (`core.inbox.rules`); a caller's metadata must not.
    """
    inner = "subscription_data" if order.recurrence else "payment_intent_data"
    return {inner: {"metadata": {ATTEMPT: str(order.attempt)}}}
