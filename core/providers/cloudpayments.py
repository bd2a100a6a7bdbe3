"""CloudPayments and its sister brands, such as TipTop Pay: orders on their page, found again by our attempt.

(https://developers.cloudpayments.ru/en/#api)
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import structlog

from core.errors import Refusal
from core.inbox.cloudpayments import read_fields
from core.provider_units import read_decimal, write_decimal
from core.providers import reading
from core.providers.calling import TOTAL_SECONDS, Caller, unreadable, unsupported
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Method,
    Notice,
    Order,
    RefundSight,
    Sight,
    Standing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.settings import Settings

log = structlog.get_logger(__name__)

NAME: Final = "cloudpayments"
TRANSACTION: Final = "transaction"

# A card that was declined, or a bank's page that was left, ends one try, and the order may be paid by another.
_STANDINGS: Final[Mapping[str, Standing]] = {
    "AwaitingAuthentication": Standing.OPEN,
    "Declined": Standing.OPEN,
    "Authorized": Standing.PROCESSING,
    "Completed": Standing.PAID,
    "Cancelled": Standing.CANCELED,
}
# This is said of an order that nobody has tried to pay.
_NOT_FOUND: Final = "not found"
# Amounts go out as numbers, with the digits of the text.
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class _Answer(msgspec.Struct, rename="pascal"):
    success: bool
    message: str | None = None
    model: msgspec.Raw = msgspec.Raw(b"null")


class _Made(msgspec.Struct, rename="pascal"):
    id: str
    url: str
    number: int | None = None


class _Transaction(msgspec.Struct, rename="pascal"):
    transaction_id: int
    status: str
    amount: Decimal
    currency: str
    total_fee: Decimal | None = None
    refunded: bool = False


class _Refunded(msgspec.Struct, rename="pascal"):
    transaction_id: int | None = None


class CloudPayments:
    """CloudPayments as a `core.providers.protocol.Provider`. The order's InvoiceId is our attempt.

    An order's key is known for an hour. A repetition after that makes a second order, whose address alone is given to
    the payer; a refund must not be repeated then.
    """

    name = NAME
    repeats = True

    def __init__(self, public_id: str, api_secret: str, caller: Caller) -> None:
        self._authorization = aiohttp.encode_basic_auth(public_id, api_secret)
        self._caller = caller

    @classmethod
    def of(cls, settings: Settings) -> CloudPayments | None:
        """Return the provider of CLOUDPAYMENTS_PUBLIC_ID, or None without it or CLOUDPAYMENTS_API_SECRET."""
        if not (settings.cloudpayments_public_id and settings.cloudpayments_api_secrets):
            return None
        caller = Caller(NAME, settings.cloudpayments_api_base, total_seconds=TOTAL_SECONDS)
        # During a rotation the first secret is the new one.
        return cls(settings.cloudpayments_public_id, settings.cloudpayments_api_secrets[0], caller)

    async def create(self, order: Order) -> Sight:
        """Ask for an order, which the payer pays at its address."""
        if order.method is Method.PHONE or order.recurrence is not None:
            raise unsupported(NAME, "takes single payments on its own page only")
        try:
            amount = Decimal(write_decimal(NAME, order.amount, order.currency))
        except ValueError as error:
            problem: Exception = unsupported(NAME, f"cannot take the amount: {error}")
        else:
            body = {
                "Amount": amount,
                "Currency": order.currency,
                "Description": order.title,
                "InvoiceId": str(order.attempt),
                "RequireConfirmation": False,
                "SendEmail": False,
                **({"SuccessRedirectUrl": order.success_url} if order.success_url else {}),
                **({"FailRedirectUrl": order.cancel_url} if order.cancel_url else {}),
            }
            made = await self._done("/orders/create", body, _Made, key=order.key)
            try:
                return Sight(
                    Standing.OPEN,
                    provider_id=reading.name(made.id),
                    url=reading.page(made.url),
                    word="Created",
                    names=reading.some_names(number=made.number),
                )
            except ValueError:
                problem = unreadable(NAME)
        raise problem

    async def look(self, handle: Handle) -> Sight:
        """Ask for the last payment of the order; without one the order is open."""
        answer = await self._ask("/v2/payments/find", {"InvoiceId": str(handle.order.attempt)})
        model = answer.model
        problem: Exception = unreadable(NAME)
        if bytes(model) == b"null":
            if answer.success or (answer.message or "").strip(" .").lower() != _NOT_FOUND:
                raise problem
            return Sight(Standing.OPEN, provider_id=handle.provider_id, word="no payment")
        try:
            found = reading.decoded(bytes(model), _Transaction)
            return _sight(found)._replace(provider_id=handle.provider_id)
        except ValueError:
            pass
        raise problem

    async def cancel(self, handle: Handle) -> Sight:
        """Cancel the order; a payment that came first stands."""
        cancelled = (
            handle.provider_id is not None
            and (await self._ask("/orders/cancel", {"Id": handle.provider_id})).success
        )
        sight = await self.look(handle)
        closed = cancelled and sight.standing is Standing.OPEN
        return sight._replace(standing=Standing.CANCELED) if closed else sight

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back `amount` of the payment."""
        transaction = handle.names.get(TRANSACTION) or (await self.look(handle)).names.get(TRANSACTION)
        if transaction is None:
            raise DeclinedError("CloudPayments has no payment to give back.", code="provider_payment_absent")
        body = {
            "TransactionId": int(transaction),
            "Amount": Decimal(write_decimal(NAME, amount, handle.order.currency)),
        }
        done = await self._done("/payments/refund", body, _Refunded, key=key)
        number = None if done.transaction_id is None else str(done.transaction_id)
        return RefundSight(True, number, amount, "Refunded")

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read a notification; its type is the kind of its URL."""
        return read_event(event_type, body)

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()

    async def _done(self, path: str, body: Mapping[str, Any], kind: type[Any], *, key: str) -> Any:
        """Return the model of a yes. Raises DeclinedError with CloudPayments' words."""
        answer = await self._ask(path, body, key=key)
        if not answer.success:
            raise DeclinedError(f"{NAME} has declined.", word=reading.word(answer.message))
        try:
            return reading.decoded(bytes(answer.model), kind)
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    async def _ask(self, path: str, body: Mapping[str, Any], *, key: str | None = None) -> _Answer:
        headers = {
            "Authorization": self._authorization,
            "Content-Type": "application/json",
            **({"X-Request-ID": key} if key else {}),
        }
        reply = await self._caller.call("POST", path, headers=headers, body=_ENCODER.encode(body))
        return reply.read(_Answer) if reply.good else reply.refuse(_Answer)


def read_event(event_type: str, body: bytes) -> Notice | None:
    """Read a notification; its type is the kind of its URL; None if it is about no payment. Raises ValueError."""
    if event_type not in _KINDS:
        return None
    fields = _fields(body)
    own = [reading.name(fields[name]) for name in ("InvoiceId", "TransactionId") if fields.get(name)]
    if not own:
        raise ValueError("the notification names no payment")
    if event_type == "refund":
        return _refund_notice(own, fields)
    standing = _KINDS[event_type]
    if event_type == "pay" and fields.get("Status") == "Authorized":
        standing = Standing.PROCESSING
    amount, currency = _money(fields) if standing is Standing.PAID else (None, None)
    sight = Sight(
        standing,
        amount=amount,
        currency=currency,
        word=reading.word(fields.get("Reason") or fields.get("Status") or event_type),
        names=reading.some_names(transaction=fields.get("TransactionId")),
    )
    return Notice(own, sight)


_KINDS: Final[Mapping[str, Standing]] = {
    "pay": Standing.PAID,
    "confirm": Standing.PAID,
    "fail": Standing.OPEN,
    "cancel": Standing.CANCELED,
    "refund": Standing.PAID,
}
KINDS: Final = frozenset(_KINDS)
"""The kinds of the notifications that are read."""


def _sight(found: _Transaction) -> Sight:
    standing = _STANDINGS.get(found.status)
    if standing is None:
        # A word that is not known is no end of the payment.
        log.warning("cloudpayments.unknown_status", status=reading.word(found.status))
        standing = Standing.PROCESSING
    currency = reading.currency(found.currency)
    amount = read_decimal(NAME, found.amount, currency)
    fee = found.total_fee
    paid = standing is Standing.PAID
    return Sight(
        standing,
        amount=amount if paid else None,
        currency=currency if paid else None,
        refunded=0 if paid and not found.refunded else None,
        fee=read_decimal(NAME, fee, currency) if paid and fee is not None and fee > 0 else None,
        word=reading.word(found.status),
        names={TRANSACTION: str(found.transaction_id)},
    )


def _refund_notice(own: list[str], fields: Mapping[str, str]) -> Notice:
    """Read a refund, which is a transaction of its own. Its notification need not tell a currency."""
    payment = fields.get("PaymentTransactionId", "")
    amount = _money(fields)[0] if fields.get("Currency") else None
    refund = RefundSight(True, reading.name(fields.get("TransactionId")), amount, "refund")
    sight = Sight(Standing.PAID, word="refunded", names=reading.some_names(transaction=payment or None))
    names = [*own[:-1], *([reading.name(payment)] if payment else own[-1:])]
    return Notice(names, sight, refund)


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        return read_fields(body)
    except Refusal as refusal:
        raise ValueError(refusal.detail) from None


def _money(fields: Mapping[str, str]) -> tuple[int, str]:
    currency = reading.currency(fields.get("Currency", ""))
    try:
        return read_decimal(NAME, Decimal(fields.get("Amount", "")), currency), currency
    except InvalidOperation:
        raise ValueError("the amount is none") from None
