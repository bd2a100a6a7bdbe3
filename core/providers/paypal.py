"""PayPal: orders that a payer approves on PayPal's page, and whose money a call of ours then takes (Orders v2).

(https://developer.paypal.com/docs/api/orders/v2/, .../payments/v2/)
"""

from __future__ import annotations

import hashlib
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from core.inbox.paypal.api import BASES
from core.inbox.paypal.client import Client, UnreachableError
from core.inbox.paypal.tokens import Tokens
from core.provider_units import write_decimal
from core.providers import paypal_objects, reading
from core.providers.calling import TOTAL_SECONDS, Caller, never, unreadable, unsupported
from core.providers.paypal_objects import NAME, PayPalOrder, PayPalRefund
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.providers.calling import Reply
    from core.settings import Settings

_ORDERS: Final = "/v2/checkout/orders"
MOST_DESCRIPTION: Final = 127
_REFUSED_TOKEN: Final = 401
_MISSING: Final = 404
_CONFLICT: Final = 409

# Issues that say that an earlier call of this name is at work, was another one, or has been paid.
_UNSURE: Final = frozenset({"PREVIOUS_REQUEST_IN_PROGRESS", "DUPLICATE_REQUEST_ID", "DUPLICATE_INVOICE_ID"})
_TAKEN: Final = "ORDER_ALREADY_CAPTURED"


class _Issue(msgspec.Struct):
    issue: str = ""


class _Problem(msgspec.Struct):
    name: str = ""
    details: list[_Issue] = []

    @property
    def word(self) -> str:
        return reading.word(next((one.issue for one in self.details if one.issue), self.name))


class PayPal:
    """PayPal as a `core.providers.protocol.Provider`.

    Nothing is charged before the capture. `look` captures what the payer has approved while the payment is wanted; to
    give a payment up is never to capture it.
    """

    name = NAME
    repeats = True

    def __init__(self, caller: Caller, tokens: Tokens, client: Client, *, landing_url: str = "") -> None:
        self._caller = caller
        self._tokens = tokens
        self._client = client
        self._landing_url = landing_url

    @classmethod
    def of(cls, settings: Settings, *, total_seconds: float = TOTAL_SECONDS) -> PayPal | None:
        """Return the provider of PAYPAL_CLIENT_ID, or None where it is unset. Raises OSError for missing roots."""
        base = settings.paypal_api_base or BASES.get(settings.paypal_mode, "")
        if not (settings.paypal_client_id and settings.paypal_client_secret and base):
            return None
        roots = settings.paypal_roots_file
        client = Client(roots)
        caller = Caller(
            NAME,
            base,
            total_seconds=total_seconds,
            tls=ssl.create_default_context(cafile=roots) if roots else None,
        )
        tokens = Tokens(
            client,
            base_url=base,
            client_id=settings.paypal_client_id,
            client_secret=settings.paypal_client_secret,
        )
        return cls(caller, tokens, client, landing_url=settings.public_base_url)

    async def create(self, order: Order) -> Sight:
        """Ask for an order, which the payer approves at its address."""
        if order.method is Method.PHONE or order.recurrence is not None:
            raise unsupported(NAME, "takes single payments on its own page only")
        try:
            amount = _money(order.amount, order.currency)
        except ValueError as error:
            problem = unsupported(NAME, f"cannot take the amount: {error}")
        else:
            return _sight(await self._post(_ORDERS, order.key, self._body(order, amount)))
        raise problem

    async def look(self, handle: Handle) -> Sight:
        """Ask for the order, and take the money that the payer has approved if the payment is wanted.

        An order that nobody has approved is forgotten by PayPal after hours, and then EXPIRED; a captured one is kept.
        """
        found = await self._shown(handle)
        if found is None:
            return Sight(Standing.EXPIRED, provider_id=handle.provider_id, word="RESOURCE_NOT_FOUND")
        if found.status == paypal_objects.APPROVED and handle.wanted:
            return await self._capture(handle, found)
        return _readable(found)

    async def cancel(self, handle: Handle) -> Sight:
        """Give the payment up: without our capture nobody is charged."""
        sight = await self.look(handle._replace(wanted=False))
        return sight._replace(standing=Standing.CANCELED) if sight.standing is Standing.OPEN else sight

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back `amount` of the capture."""
        capture = handle.names.get("capture")
        if capture is None:
            capture = (await self.look(handle._replace(wanted=False))).names.get("capture")
        if capture is None:
            raise DeclinedError("PayPal has no payment to give back.", code="provider_payment_absent")
        body = {"amount": _money(amount, handle.order.currency)}
        path = f"/v2/payments/captures/{quote(capture, safe='')}/refund"
        refund = (await self._post(path, key, body)).read(PayPalRefund)
        try:
            return paypal_objects.refund_sight(refund, amount)
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read an event of PayPal."""
        return paypal_objects.read_event(event_type, body)

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()
        await self._client.close()

    def _body(self, order: Order, amount: dict[str, str]) -> dict[str, Any]:
        context = {
            "user_action": "PAY_NOW",
            "shipping_preference": "NO_SHIPPING",
            "return_url": order.success_url or self._landing_url,
            "cancel_url": order.cancel_url or self._landing_url,
        }
        unit = {
            "custom_id": str(order.attempt),
            # PayPal takes one payment for each invoice id, so an order that was asked for twice is paid once.
            "invoice_id": str(order.attempt),
            "description": order.title[:MOST_DESCRIPTION],
            "amount": amount,
        }
        return {
            "intent": "CAPTURE",
            "purchase_units": [unit],
            "payment_source": {
                "paypal": {"experience_context": {name: value for name, value in context.items() if value}}
            },
        }

    async def _shown(self, handle: Handle) -> PayPalOrder | None:
        if handle.provider_id is None:
            never(NAME, "finds no payment without its id; repeat the order under its key")
        reply = await self._call("GET", _path(handle.provider_id))
        if reply.status == _MISSING:
            reply.refuse(_Problem)
            return None
        return _good(reply).read(PayPalOrder)

    async def _capture(self, handle: Handle, approved: PayPalOrder) -> Sight:
        # PayPal captures an order once, whatever the key. Each approval has a key of its own, since PayPal would give
        # the refusal of the first again after the payer has chosen another card.
        approval = hashlib.sha256((approved.update_time or "").encode()).hexdigest()[:8]
        path = f"{_path(approved.id)}/capture"
        try:
            return _sight(await self._post(path, f"{handle.order.key}:capture:{approval}", {}))
        except DeclinedError as error:
            word = error.word
        if word == _TAKEN:
            return await self.look(handle._replace(wanted=False))
        # The bank has said no to this card; the payer may come back with another.
        return _readable(approved)._replace(word=word)

    async def _post(self, path: str, key: str, body: Mapping[str, Any]) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "PayPal-Request-Id": key,
            "Prefer": "return=representation",
        }
        return _good(await self._call("POST", path, headers, msgspec.json.encode(body)))

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """Call under the current token; once more under a new one if PayPal refuses it, as nothing was done then."""
        token = await self._token()
        reply = await self._caller.call(method, path, headers=_signed(headers, token), body=body)
        if reply.status != _REFUSED_TOKEN:
            return reply
        self._tokens.forget(token)
        return await self._caller.call(method, path, headers=_signed(headers, await self._token()), body=body)

    async def _token(self) -> str:
        try:
            return await self._tokens.current()
        except UnreachableError:
            problem = UnsentError("PayPal has given no access token.", code="provider_credentials")
        raise problem


def _signed(headers: Mapping[str, str] | None, token: str) -> dict[str, str]:
    return {**(headers or {}), "Authorization": f"Bearer {token}"}


def _path(order_id: str) -> str:
    return f"{_ORDERS}/{quote(order_id, safe='')}"


def _money(amount: int, currency: str) -> dict[str, str]:
    return {"currency_code": currency, "value": write_decimal(NAME, amount, currency)}


def _good(reply: Reply) -> Reply:
    """Return an answer that is a yes. Raises DeclinedError, and UnknownError where a call of before may have worked."""
    if reply.good:
        return reply
    problem = reply.refuse(_Problem)
    if reply.status == _CONFLICT or problem.word in _UNSURE:
        raise UnknownError(f"{NAME} knows the call from before: {problem.word}.", code="provider_key_reused")
    raise DeclinedError(f"{NAME} has declined.", word=problem.word)


def _sight(reply: Reply) -> Sight:
    return _readable(reply.read(PayPalOrder))


def _readable(order: PayPalOrder) -> Sight:
    try:
        return paypal_objects.sight_of_order(order)
    except ValueError:
        problem = unreadable(NAME)
    raise problem
