"""Kaspi without a proxy: the bank's own API (r3), to which a client proves itself by its certificate and its address.

The bank knows no idempotency key here either, so an order and a refund are sent once. It tells more than the proxy: how
much was paid, and how much of it can still be given back.
"""

from __future__ import annotations

import asyncio
import ssl
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from core.provider_units import UnknownUnitError, read_decimal
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
    Standing,
    UnknownError,
    UnsentError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from core.settings import Settings

_CURRENCY: Final = "KZT"
_JSON: Final = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode


class _Answer(msgspec.Struct, rename="pascal"):
    """The bank's envelope: 0 is good, any other number is a refusal with its words."""

    status_code: int
    message: str | None = None
    data: Any = None


class _Created(msgspec.Struct, rename="pascal"):
    qr_payment_id: int | str


class _Linked(msgspec.Struct, rename="pascal"):
    payment_id: int | str
    payment_link: str
    expire_date: str | None = None


class _Status(msgspec.Struct, rename="pascal"):
    status: str


class _Details(msgspec.Struct, rename="pascal"):
    total_amount: Decimal
    available_return_amount: Decimal


class _Returned(msgspec.Struct, rename="pascal"):
    return_operation_id: int | str | None = None


class _Device(msgspec.Struct, rename="pascal"):
    device_token: str


class _TradePoint(msgspec.Struct, rename="pascal"):
    trade_point_id: int
    trade_point_name: str = ""


class TradePoint(NamedTuple):
    """A place of sale of an organization, at which devices are registered."""

    id: int
    name: str


class KaspiBank:
    """The bank as a `core.providers.protocol.Provider`.

    A question may be asked again, `retries` times with a pause of `retry_seconds`, which only a question is.
    """

    name = NAME
    repeats = False

    def __init__(self, caller: Caller, *, retries: int = 0, retry_seconds: float = 1.0) -> None:
        self._caller = caller
        self._retries = retries
        self._retry_seconds = retry_seconds

    @classmethod
    def of(cls, settings: Settings) -> KaspiBank | None:
        """Return the provider of KASPI_API_BASE, or None where it is unset.

        Raises OSError for a certificate, a key or roots that cannot be read.
        """
        if not settings.kaspi_api_base:
            return None
        caller = Caller(
            NAME,
            settings.kaspi_api_base,
            total_seconds=settings.kaspi_api_timeout,
            fresh=True,
            tls=_tls(settings),
        )
        return cls(caller, retries=settings.kaspi_max_retries, retry_seconds=settings.kaspi_retry_delay)

    async def create(self, order: Order) -> Sight:
        """Send the bank's message to the payer's phone, or ask for a link."""
        amount = amount_text(order.amount, order.currency)
        if amount is None:
            raise unsupported(NAME, f"takes whole hundredths of KZT and no {order.currency}")
        asked: dict[str, Any] = {**_merchant(order), "Amount": msgspec.Raw(amount.encode())}
        if order.method is Method.PHONE:
            asked |= {"PhoneNumber": order.phone or "", "Comment": order.title}
            created = await self._post("/r3/v01/remote/create", asked, _Created)
            return sight_of("Wait", created.qr_payment_id, self._hide(asked))
        if order.method is Method.PAYMENT_LINK:
            asked["ExternalId"] = str(order.attempt)
            linked = await self._post("/r3/v01/qr/create-link", asked, _Linked)
            return linked_sight(linked.payment_id, linked.payment_link, linked.expire_date)
        raise unsupported(NAME, f"has no {order.method}")

    async def look(self, handle: Handle) -> Sight:
        """Ask for the status, and of a payment that was paid for its amounts."""
        provider_id = _known(handle)
        for _ in range(self._retries):
            try:
                return await self._look(provider_id, handle)
            except (UnknownError, UnsentError):
                await asyncio.sleep(self._retry_seconds)
        return await self._look(provider_id, handle)

    async def cancel(self, handle: Handle) -> Sight:
        """Return how the payment stands: an open one stays open until the bank ends it."""
        return await self.look(handle)

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:  # noqa: ARG002 - the bank has no keys
        """Give back `amount`, whatever the key: a refund that nobody knows the end of must not be asked for again."""
        written = amount_text(amount, handle.order.currency)
        if written is None:
            raise unsupported(NAME, f"takes whole hundredths of KZT and no {handle.order.currency}")
        asked = {
            **_merchant(handle.order),
            "QrPaymentId": _number(_known(handle)),
            "Amount": msgspec.Raw(written.encode()),
        }
        returned = await self._post("/r3/v01/payment/return", asked, _Returned)
        try:
            found = returned.return_operation_id
            return RefundSight(True, None if found is None else reading.name(found), amount, "success")
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    async def register_device(self, organization_bin: str, trade_point: int, device_id: str) -> str:
        """Register a device at a trade point, and return its token."""
        asked = {"DeviceId": device_id, "OrganizationBin": organization_bin, "TradePointId": trade_point}
        device: _Device = await self._post("/r3/v01/device/register", asked, _Device)
        return device.device_token

    async def trade_points(self, organization_bin: str) -> list[TradePoint]:
        """Return the trade points of an organization."""
        found = await self._get(f"/r3/v01/partner/tradepoints/{organization_bin}", {}, list[_TradePoint])
        return [TradePoint(one.trade_point_id, reading.word(one.trade_point_name)) for one in found]

    def read(self, event_type: str, body: bytes) -> Notice | None:  # noqa: ARG002 - the protocol's
        """Return None: the bank sends no events."""
        return None

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()

    async def _look(self, provider_id: str, handle: Handle) -> Sight:
        path, told = f"/r3/v02/payment/status/{_number(provider_id)}", _merchant(handle.order)
        found = await self._ask(path, {}, _Status, told)
        sight = sight_of(found.status, provider_id, self._hide(told))
        token = handle.order.terms.get(TOKEN)
        if sight.standing is not Standing.PAID or not token:
            return sight
        query = {"QrPaymentId": provider_id, "DeviceToken": token}
        try:
            details = await self._ask("/r3/v01/payment/details", query, _Details, told)
        except (UnknownError, UnsentError):
            return sight  # that it was paid is known, and how much of it was given back is not
        total, left = (_hundredths(one) for one in (details.total_amount, details.available_return_amount))
        if not 0 <= left <= total:
            raise unreadable(NAME)
        return sight._replace(amount=total, currency=_CURRENCY, refunded=total - left)

    async def _ask(
        self, path: str, query: Mapping[str, str], kind: type[Any], told: Mapping[str, str]
    ) -> Any:
        """Ask a question. A refusal of it says nothing about the payment, which may be another shop's."""
        try:
            return await self._get(path, query, kind, told)
        except DeclinedError as error:
            refused = error.detail
        raise UnknownError(refused, code=CANNOT_TELL)

    async def _get(
        self, path: str, query: Mapping[str, str], kind: Any, told: Mapping[str, Any] | None = None
    ) -> Any:
        reply = await self._caller.call("GET", path, query=query or None)
        return _opened(reply, kind, self._hide(told or {}))

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[Any]) -> Any:
        reply = await self._caller.call("POST", path, headers=_JSON, body=_encode(body))
        return _opened(reply, kind, self._hide(body))

    def _hide(self, told: Mapping[str, Any]) -> Callable[[str], str]:
        return hiding(self._caller.base_url, told.get("DeviceToken"))


def _opened(reply: Any, kind: Any, hide: Callable[[str], str]) -> Any:
    """Return the `Data` of the bank's envelope. Raises DeclinedError with the bank's code and words, less secrets."""
    answer: _Answer = reply.read(_Answer) if reply.good else reply.refuse(_Answer)
    if answer.status_code != 0:
        code, text = str(answer.status_code), reading.word(hide(answer.message or "")) or "Unknown error"
        if code in UNSURE:
            raise UnknownError(f"{NAME} does not know: {text} (code: {code}).")
        raise DeclinedError(f"{text} (code: {code})", word=text, provider_code=code)
    if not reply.good:
        raise unreadable(NAME)
    try:
        return msgspec.convert(answer.data, kind)
    except msgspec.ValidationError:
        problem = unreadable(NAME)
    raise problem


def _merchant(order: Order) -> dict[str, str]:
    token = order.terms.get(TOKEN)
    return {"OrganizationBin": order.terms.get(BIN, ""), **({"DeviceToken": token} if token else {})}


def _known(handle: Handle) -> str:
    if handle.provider_id is None:
        never(NAME, "finds no payment without its id")
    return handle.provider_id


def _number(provider_id: str) -> int:
    """Return the bank's id as the number that it is; no other text reaches the bank's paths."""
    if not (provider_id.isascii() and provider_id.isdigit()):
        never(NAME, "gives whole numbers as ids, and this is none")
    return int(provider_id)


def _hundredths(amount: Decimal) -> int:
    try:
        return read_decimal(NAME, amount, _CURRENCY)
    except UnknownUnitError:
        problem = unreadable(NAME)
    raise problem


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the context with our certificate, by which the bank knows us; None where there is none."""
    if not settings.kaspi_api_cert_file and not settings.kaspi_api_roots_file:
        return None
    context = ssl.create_default_context(cafile=settings.kaspi_api_roots_file or None)
    if settings.kaspi_api_cert_file:
        # A password is always given, as OpenSSL would else ask for one at the terminal.
        context.load_cert_chain(
            settings.kaspi_api_cert_file,
            settings.kaspi_api_key_file or None,
            lambda: str(settings.kaspi_api_key_password),
        )
    return context
