"""The simulator: a provider that charges nobody, for development and tests (`handlers/simulator` is its server)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from core.provider_units import from_ledger, to_ledger
from core.providers import reading
from core.providers.calling import TOTAL_SECONDS, Caller, unreadable, unsupported
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Notice,
    Order,
    RefundSight,
    Sight,
    Standing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.providers.calling import Reply
    from core.settings import Settings

NAME: Final = "simulator"
_PAYMENTS: Final = "/v1/payments"
_MISSING: Final = 404
_DONE: Final = {"succeeded": True, "pending": None, "failed": False}


class Refund(msgspec.Struct):
    """A refund as the simulator shows it."""

    id: str
    amount: int
    status: str


class Payment(msgspec.Struct):
    """A payment as the simulator shows it: `amount` is the order's, and once it is paid the one that was charged."""

    id: str
    standing: Standing
    amount: int
    currency: str
    refunded: int
    url: str
    expires_at: datetime
    fee: int | None = None
    attempt: str | None = None


class _Event(msgspec.Struct):
    type: str
    data: Payment
    refund: Refund | None = None
    dispute: int | None = None


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""


class Simulator:
    """The simulator as a `core.providers.protocol.Provider`."""

    name = NAME
    repeats = True

    def __init__(self, base_url: str, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._caller = Caller(NAME, base_url, total_seconds=total_seconds)

    @classmethod
    def of(cls, settings: Settings) -> Simulator | None:
        """Return the provider of SIMULATOR_URL, or None where it is unset."""
        url = settings.simulator_url
        return cls(url, total_seconds=settings.simulator_timeout) if url else None

    async def create(self, order: Order) -> Sight:
        """Ask for the payment, under the order's key."""
        try:
            amount = from_ledger(NAME, order.amount, order.currency)
        except ValueError as error:
            problem = unsupported(NAME, f"cannot take the amount: {error}")
        else:
            return _sight(await self._post(_PAYMENTS, order.key, _body(order, amount)))
        raise problem

    async def look(self, handle: Handle) -> Sight:
        """Ask for the payment by its id, or by the order's key where the id is not known."""
        if handle.provider_id is None:
            reply = await self._caller.call("GET", _PAYMENTS, query={"key": handle.order.key})
        else:
            reply = await self._caller.call("GET", _path(handle.provider_id))
        # The simulator knows every payment from the moment in which it takes the order.
        return Sight(Standing.ABSENT) if reply.status == _MISSING else _sight(reply)

    async def cancel(self, handle: Handle) -> Sight:
        """Cancel the payment unless it is paid."""
        found = await self.look(handle)
        if found.provider_id is None:
            return found
        return _sight(await self._post(f"{_path(found.provider_id)}/cancel", handle.order.key, {}))

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back `amount`, once under `key`."""
        found = handle.provider_id or (await self.look(handle)).provider_id
        if found is None:
            raise DeclinedError("The simulator knows no such payment.", code="provider_payment_absent")
        units = from_ledger(NAME, amount, handle.order.currency)
        reply = await self._post(f"{_path(found)}/refunds", key, {"amount": units})
        return _refund_sight(_good(reply).read(Refund), handle.order.currency)

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read an event of the simulator."""
        return read_event(event_type, body)

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()

    async def _post(self, path: str, key: str, body: Mapping[str, object]) -> Reply:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return await self._caller.call("POST", path, headers=headers, body=msgspec.json.encode(body))


def read_event(event_type: str, body: bytes) -> Notice | None:
    """Read an event of the simulator; None if it is about no payment. Raises ValueError."""
    if not event_type.startswith("payment."):
        return None
    event = reading.decoded(body, _Event)
    sight = sight_of(event.data)
    names = [reading.name(event.data.id), *([reading.name(event.data.attempt)] if event.data.attempt else [])]
    refund = None if event.refund is None else _refund_sight(event.refund, event.data.currency)
    dispute = None if event.dispute is None else to_ledger(NAME, event.dispute, event.data.currency)
    return Notice(names, sight, refund, dispute, dispute_currency=None if dispute is None else sight.currency)


def sight_of(payment: Payment) -> Sight:
    """Return what a payment of the simulator tells. Raises ValueError."""
    currency = reading.currency(payment.currency)
    return Sight(
        payment.standing,
        provider_id=reading.name(payment.id),
        amount=to_ledger(NAME, payment.amount, currency),
        currency=currency,
        refunded=to_ledger(NAME, payment.refunded, currency),
        fee=None if payment.fee is None else to_ledger(NAME, payment.fee, currency),
        url=reading.page(payment.url),
        expires_at=payment.expires_at,
        word=payment.standing,
    )


def _body(order: Order, amount: int) -> dict[str, object]:
    return {
        "attempt": str(order.attempt),
        "amount": amount,
        "currency": order.currency,
        "method": order.method,
        "title": order.title,
        "reference": order.reference,
        "customer": order.customer,
        "phone": order.phone,
        "recurrence": order.recurrence and order.recurrence._asdict(),
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "metadata": dict(order.metadata),
    }


def _path(payment: str) -> str:
    return f"{_PAYMENTS}/{quote(payment, safe='')}"


def _good(reply: Reply) -> Reply:
    if not reply.good:
        word = reading.word(reply.refuse(_Problem).code)
        # The code stands where surfaces that show a provider's sentence have the bank's.
        raise DeclinedError(f"The simulator has declined. (code: {word})", word=word)
    return reply


def _sight(reply: Reply) -> Sight:
    payment = _good(reply).read(Payment)
    try:
        return sight_of(payment)
    except ValueError:
        problem = unreadable(NAME)
    raise problem


def _refund_sight(refund: Refund, currency: str) -> RefundSight:
    amount = to_ledger(NAME, refund.amount, currency)
    return RefundSight(_DONE.get(refund.status), reading.name(refund.id), amount, reading.word(refund.status))
