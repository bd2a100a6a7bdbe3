"""The simulator's book: its payments and refunds, in the memory of one process, and the rules by which they change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.ids import new_uuid
from core.provider_units import UNITS
from core.providers.protocol import Method, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from handlers.simulator.faults import Fault

# A process holds so many; each has about 2 KB.
MOST_PAYMENTS: Final = 100_000
LIFE: Final = timedelta(hours=24)
# The fee, in parts of ten thousand, rounded down.
FEE_BASIS_POINTS: Final = 250
_OPEN: Final = frozenset({Standing.OPEN, Standing.PROCESSING})


class Refused(Exception):
    """The simulator's no, with an HTTP status and a word."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class OrderBody(msgspec.Struct, frozen=True):
    """An order as it comes in. `amount` is in the minor units of ISO 4217."""

    amount: int
    currency: str
    method: Method
    title: str = ""
    reference: str = ""
    attempt: str | None = None
    customer: str | None = None
    phone: str | None = None
    recurrence: dict[str, Any] | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    metadata: dict[str, str] = {}


@dataclass(slots=True)
class Payment:
    """One payment. `charged` and `charged_in` differ from the order's where a fault says so."""

    id: str
    order: OrderBody
    faults: list[Fault]
    created_at: datetime
    standing: Standing = Standing.OPEN
    charged: int = 0
    charged_in: str = ""
    refunded: int = 0
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    paid_at: datetime | None = None

    @property
    def expires_at(self) -> datetime:
        """The end of its time, in UTC."""
        return self.created_at + LIFE

    def shown(self, url: str) -> dict[str, Any]:
        """Return the payment as the API shows it."""
        order, paid = self.order, self.standing is Standing.PAID
        amount = self.charged if paid else order.amount
        return {
            "id": self.id,
            "standing": self.standing,
            "amount": amount,
            "currency": self.charged_in if paid else order.currency,
            "refunded": self.refunded,
            "fee": amount * FEE_BASIS_POINTS // 10_000 if paid else None,
            "url": url,
            "expires_at": self.expires_at,
            "created_at": self.created_at,
            "paid_at": self.paid_at,
            "attempt": order.attempt,
            "reference": order.reference,
            "title": order.title,
            "metadata": order.metadata,
        }


class Book:
    """All payments. `tell` hears of each change: the type of the event, the payment, and further fields."""

    def __init__(
        self,
        tell: Callable[[str, Payment, Mapping[str, Any]], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._payments: dict[str, Payment] = {}
        self._by_key: dict[str, tuple[bytes, str | Refused]] = {}

    def known(self, key: str, body: bytes) -> Payment | None:
        """Return the payment that was made under a key, None for a new one. Raises Refused as it was refused then."""
        found = self._by_key.get(key)
        if found is None:
            return None
        fingerprint, outcome = found
        if fingerprint != _fingerprint(body):
            raise Refused(422, "key_reused", "The key belongs to another order.")
        if isinstance(outcome, Refused):
            raise outcome
        return self._payments[outcome]

    def decline(self, key: str, body: bytes) -> Refused:
        """Refuse an order for good under its key, and return the refusal."""
        refused = Refused(402, "declined", "The simulator was told to decline.")
        if len(self._by_key) < 2 * MOST_PAYMENTS:
            self._by_key[key] = (_fingerprint(body), refused)
        return refused

    def create(self, key: str, body: bytes, order: OrderBody, faults: list[Fault]) -> Payment:
        """Take a new order. Raises Refused."""
        if not 0 < order.amount <= 10**15:
            raise Refused(400, "amount", "The amount is a whole number of minor units above zero.")
        if order.currency not in UNITS["simulator"]:
            raise Refused(400, "currency", "The currency is not known.")
        if len(self._payments) >= MOST_PAYMENTS:
            raise Refused(507, "full", "The simulator holds no more payments; start it again.")
        payment = Payment(f"sim_{new_uuid().hex}", order, faults, self._clock())
        self._payments[payment.id] = payment
        self._by_key[key] = (_fingerprint(body), payment.id)
        return payment

    def get(self, payment_id: str) -> Payment:
        """Return a payment, expired if its time is over. Raises Refused."""
        payment = self._payments.get(payment_id)
        if payment is None:
            raise Refused(404, "not_found", "There is no such payment.")
        if payment.standing is Standing.OPEN and self._clock() >= payment.expires_at:
            self._become(payment, Standing.EXPIRED)
        return payment

    def by_key(self, key: str) -> Payment:
        """Return the payment that was made under a key. Raises Refused."""
        found = self._by_key.get(key)
        if found is None or isinstance(found[1], Refused):
            raise Refused(404, "not_found", "There is no such payment.")
        return self.get(found[1])

    def settle(self, payment: Payment, outcome: Standing, words: Mapping[str, str]) -> None:
        """Let the payer's attempt end so. Raises Refused for a payment that nobody may pay any more."""
        if payment.standing not in _OPEN:
            raise Refused(409, "not_open", f"The payment is {payment.standing}.")
        if outcome is Standing.PAID:
            payment.charged = payment.order.amount + int(words.get("wrong_amount", "0"))
            payment.charged_in = words.get("wrong_currency") or payment.order.currency
            payment.paid_at = self._clock()
        self._become(payment, outcome)

    def cancel(self, payment: Payment) -> None:
        """Cancel a payment that nobody has paid; any other one stays as it is."""
        if payment.standing is Standing.OPEN:
            self._become(payment, Standing.CANCELED)

    def refund(self, payment: Payment, key: str, amount: int, words: Mapping[str, str]) -> dict[str, Any]:
        """Give back a part, once under a key. Raises Refused."""
        known = payment.refunds.get(key)
        if known is not None:
            if known["amount"] != amount:
                raise Refused(422, "key_reused", "The key belongs to another refund.")
            return known
        if payment.standing is not Standing.PAID or not 0 < amount <= payment.charged - payment.refunded:
            raise Refused(402, "refund_refused", "So much is not there to be given back.")
        status = "pending" if "pending" in words else "failed" if "failed" in words else "succeeded"
        refund = {"id": f"re_{new_uuid().hex}", "amount": amount, "status": status}
        payment.refunds[key] = refund
        if status == "succeeded":
            payment.refunded += amount
        self._tell("payment.refunded", payment, {"refund": refund})
        return refund

    def dispute(self, payment: Payment, amount: int) -> None:
        """Let the payer's bank take `amount`, or give it back if it is negative. Raises Refused."""
        if payment.standing is not Standing.PAID or not 0 < abs(amount) <= payment.charged:
            raise Refused(409, "not_paid", "There is nothing to dispute.")
        self._tell("payment.disputed", payment, {"dispute": amount})

    def page(self, after: int, limit: int) -> list[tuple[int, Payment]]:
        """Return payments in the order of their creation, each with its number."""
        wanted = range(after, min(after + limit, len(self._payments)))
        if not wanted:
            return []
        listed = list(self._payments.values())
        return [(number + 1, listed[number]) for number in wanted]

    def all(self) -> Iterable[Payment]:
        """Return all payments in the order of their creation."""
        return list(self._payments.values())

    def _become(self, payment: Payment, standing: Standing) -> None:
        payment.standing = standing
        self._tell(f"payment.{standing}", payment, {})


def _fingerprint(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
