"""The provider of payment links for merchants' orders: `POST {PROVIDER_URL}/payment-links`, and a webhook of one word.

It answers no questions. A payment is known by its webhook alone, and a link by asking for it again: its token is made
of the payment, the merchant and the alias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.providers import reading
from core.providers.calling import Caller, never, unreadable, unsupported
from core.providers.protocol import (
    DeclinedError,
    Handle,
    Notice,
    Order,
    RefundSight,
    Sight,
    Standing,
    UnknownError,
)

if TYPE_CHECKING:
    from core.settings import Settings

NAME: Final = "links"
MERCHANT: Final = "merchant_id"
ALIAS: Final = "alias"
"""Names in an order's `terms`: the merchant's id, and the alias of the provider behind the links."""

# The old service's bound of this call.
TOTAL_SECONDS: Final = 3.0
FINISHED: Final = "finished"


class _Linked(msgspec.Struct):
    payment_url: str | None = None


class _Event(msgspec.Struct):
    payment_id: int
    status: str


class Links:
    """The links' provider as a `core.providers.protocol.Provider`. An order's `reference` is its payment's number."""

    name = NAME
    repeats = True

    def __init__(self, base_url: str, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._caller = Caller(NAME, base_url, total_seconds=total_seconds)

    @classmethod
    def of(cls, settings: Settings) -> Links | None:
        """Return the provider of PROVIDER_URL, or None where it is unset."""
        return cls(settings.provider_url) if settings.provider_url else None

    async def create(self, order: Order) -> Sight:
        """Ask for the link. An answer without an address is an order without one, as in the old service."""
        if not (order.reference.isascii() and order.reference.isdigit()):
            raise unsupported(NAME, "knows payments by their number")
        body = {
            "payment_id": int(order.reference),
            "merchant_id": order.terms.get(MERCHANT, ""),
            "provider": order.terms.get(ALIAS, ""),
        }
        reply = await self._caller.call(
            "POST",
            "/payment-links",
            headers={"Content-Type": "application/json"},
            body=msgspec.json.encode(body),
        )
        if not reply.good:
            # The links' provider has no documented form of refusals.
            reply.refuse(Any)
            raise DeclinedError(f"{NAME} has answered with status {reply.status}.", word=str(reply.status))
        if reply.status != 200:
            raise UnknownError(f"{NAME} has answered with status {reply.status}.")
        linked = reply.read(_Linked)
        try:
            return Sight(Standing.OPEN, provider_id=order.reference, url=reading.page(linked.payment_url))
        except ValueError:
            problem = unreadable(NAME)
        raise problem

    async def look(self, handle: Handle) -> Sight:  # noqa: ARG002 - the protocol's
        """Raise UnknownError: the provider answers no questions."""
        never(NAME, "tells how a payment stands by its webhook alone")

    async def cancel(self, handle: Handle) -> Sight:  # noqa: ARG002 - the protocol's
        """Raise UnknownError: a link cannot be taken back."""
        never(NAME, "takes no link back")

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:  # noqa: ARG002 - the protocol's
        """Raise DeclinedError: the provider gives nothing back."""
        raise unsupported(NAME, "gives nothing back")

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read a webhook."""
        return read_event(event_type, body)

    async def close(self) -> None:
        """Close connections."""
        await self._caller.close()


def read_event(_event_type: str, body: bytes) -> Notice:
    """Read a webhook: `finished` is paid, and every other word says that it never will be. Raises ValueError."""
    event = reading.decoded(body, _Event)
    if event.payment_id <= 0 or not event.status:
        raise ValueError("the webhook names no payment")
    number = str(event.payment_id)
    standing = Standing.PAID if event.status == FINISHED else Standing.FAILED
    return Notice([number], Sight(standing, provider_id=number, word=reading.word(event.status)))


def event_body(number: int, word: str) -> bytes:
    """Return the body of a webhook about the payment of that number."""
    return msgspec.json.encode(_Event(number, word))
