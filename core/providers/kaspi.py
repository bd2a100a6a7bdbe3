"""Kaspi, through the proxy in front of the bank: a message to a phone, or a link.

Every call of the proxy is a GET, also an order or a refund, and the bank knows no idempotency key. An order that nobody
knows the end of is therefore never sent again. The access token stands in the query, so no error tells an address.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from core.providers import reading
from core.providers.calling import CANNOT_TELL, Caller, never, unreadable, unsupported
from core.providers.kaspi_words import BIN, NAME, TOKEN, UNSURE, amount_text, hiding, linked_sight, sight_of
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Method,
    Notice,
    Order,
    RefundSight,
    Sight,
    UnknownError,
    UnsentError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.providers.calling import Reply
    from core.settings import Settings


class _Envelope(msgspec.Struct):
    """The proxy's answer. The flag is `status`, or in its absence `success`."""

    status: bool | None = None
    success: bool | None = None
    data: Any = msgspec.UNSET
    error: str | None = None

    @property
    def good(self) -> bool:
        return bool(self.success if self.status is None else self.status)


class _Created(msgspec.Struct, rename="camel"):
    external_id: str | int
    status: str | None = None


class _Linked(msgspec.Struct, rename="camel"):
    payment_id: str | int
    payment_link: str
    expire_date: str | None = None


class _Status(msgspec.Struct, rename="camel"):
    status: str


class _Returned(msgspec.Struct, rename="camel"):
    return_operation_id: str | int | None = None


class Kaspi:
    """Kaspi as a `core.providers.protocol.Provider`.

    A question may be asked again, `retries` times with a pause of `retry_seconds`, which only a question is.
    """

    name = NAME
    repeats = False

    def __init__(
        self, access_token: str, caller: Caller, *, retries: int = 0, retry_seconds: float = 1.0
    ) -> None:
        self._access_token = access_token
        self._caller = caller
        self._retries = retries
        self._retry_seconds = retry_seconds

    @classmethod
    def of(cls, settings: Settings) -> Kaspi | None:
        """Return the provider of PRODUCTION_API_URL, or None where it is unset."""
        if not settings.production_api_url:
            return None
        # A connection of its own for each call: one that the proxy has closed meanwhile would leave an order unknown.
        caller = Caller(
            NAME, settings.production_api_url, total_seconds=settings.kaspi_api_timeout, fresh=True
        )
        return cls(
            settings.kaspi_access_token,
            caller,
            retries=settings.kaspi_max_retries,
            retry_seconds=settings.kaspi_retry_delay,
        )

    async def create(self, order: Order) -> Sight:
        """Send the bank's message to the payer's phone, or ask for a link."""
        amount = amount_text(order.amount, order.currency)
        if amount is None:
            raise unsupported(NAME, f"takes whole hundredths of KZT and no {order.currency}")
        what = {"amount": amount, "message": order.title}
        if order.method is Method.PHONE:
            parameters = {"phone": order.phone or "", **what, **_merchant(order)}
            created = await self._ask("create", parameters, _Created, order)
            return sight_of(created.status or "Wait", created.external_id, self._hide(order))
        if order.method is Method.PAYMENT_LINK:
            if not order.terms.get(TOKEN):
                raise unsupported(NAME, "makes links for a device only, and the shop has none")
            linked = await self._ask("create-link", what | _merchant(order), _Linked, order)
            return linked_sight(linked.payment_id, linked.payment_link, linked.expire_date)
        raise unsupported(NAME, f"has no {order.method}")

    async def look(self, handle: Handle) -> Sight:
        """Ask for the status. The bank tells no amount: it takes that of the order, or nothing."""
        provider_id = _known(handle)
        for _ in range(self._retries):
            try:
                return await self._look(provider_id, handle.order)
            except (UnknownError, UnsentError):
                await asyncio.sleep(self._retry_seconds)
        return await self._look(provider_id, handle.order)

    async def cancel(self, handle: Handle) -> Sight:
        """Return how the payment stands: the proxy has no call to cancel one, so an open payment stays open."""
        return await self.look(handle)

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:  # noqa: ARG002 - the bank has no keys
        """Give back `amount`, whatever the key: a refund that nobody knows the end of must not be asked for again."""
        written = amount_text(amount, handle.order.currency)
        if written is None:
            raise unsupported(NAME, f"takes whole hundredths of KZT and no {handle.order.currency}")
        parameters = {"externalId": _known(handle), "amount": written, **_merchant(handle.order)}
        reply = await self._get("refund", parameters)
        if reply.good and not reply.body.strip():
            return RefundSight(True, amount=amount, word="success")
        found = _opened(reply, _Returned, self._hide(handle.order))
        try:
            name = None if found.return_operation_id is None else reading.name(found.return_operation_id)
            return RefundSight(True, name, amount, "success")
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    def read(self, event_type: str, body: bytes) -> Notice | None:  # noqa: ARG002 - the protocol's
        """Return None: the bank sends no events."""
        return None

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()

    async def _look(self, provider_id: str, order: Order) -> Sight:
        try:
            found = await self._ask("status", {"externalId": provider_id}, _Status, order)
        except DeclinedError as error:
            # A question that is refused says nothing about the payment: the bank may have it under another shop.
            refused = error.detail
        else:
            return sight_of(found.status, provider_id, self._hide(order))
        raise UnknownError(refused, code=CANNOT_TELL)

    async def _ask(self, endpoint: str, parameters: Mapping[str, str], kind: type[Any], order: Order) -> Any:
        return _opened(await self._get(endpoint, parameters), kind, self._hide(order))

    def _hide(self, order: Order) -> Callable[[str], str]:
        return hiding(self._caller.base_url, self._access_token, order.terms.get(TOKEN))

    async def _get(self, endpoint: str, parameters: Mapping[str, str]) -> Reply:
        return await self._caller.call(
            "GET", f"/{endpoint}/", query={"access_token": self._access_token, **parameters}
        )


def _merchant(order: Order) -> dict[str, str]:
    token = order.terms.get(TOKEN)
    return {"organizationBin": order.terms.get(BIN, ""), **({"deviceToken": token} if token else {})}


def _known(handle: Handle) -> str:
    if handle.provider_id is None:
        never(NAME, "finds no payment without its id")
    return handle.provider_id


def _opened(reply: Reply, kind: type[Any], hide: Callable[[str], str]) -> Any:
    """Return the `data` of the proxy's envelope. Raises DeclinedError with the bank's code and words, less secrets."""
    envelope = reply.read(_Envelope) if reply.good else reply.refuse(_Envelope)
    if not envelope.good:
        code, text = _errors(envelope, hide)
        if code in UNSURE:
            raise UnknownError(f"{NAME} does not know: {text} (code: {code}).")
        raise DeclinedError(f"{text} (code: {code})", word=text, provider_code=code)
    if not reply.good:
        raise unreadable(NAME)
    try:
        return msgspec.convert(envelope.data, kind)
    except msgspec.ValidationError:
        # A success without an id is none: a payment that nobody can ask for again.
        problem = unreadable(NAME)
    raise problem


def _errors(envelope: _Envelope, hide: Callable[[str], str]) -> tuple[str | None, str]:
    """Return the code and the text of a refusal: the first of `data.errors`, else `error`."""
    errors = envelope.data.get("errors") if isinstance(envelope.data, dict) else None
    if isinstance(errors, dict) and errors:
        code, text = next(iter(errors.items()))
        # The whole text comes first: half a token at its end would be no token any more.
        return reading.word(hide(code)), reading.word(hide(str(text)))
    flagged = envelope.status is not None or envelope.success is not None
    if errors or envelope.data is None or not (flagged or envelope.error):
        raise unreadable(NAME)
    return None, reading.word(hide(envelope.error or "")) or "Unknown error"
