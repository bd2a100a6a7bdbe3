"""The protocol of all providers: a payment is asked for, looked at, given up, refunded; events are read.

A provider knows nothing of our database. Each call ends in one of four ways: an answer; `DeclinedError`, when the
provider has said no; `UnsentError`, when it has certainly not got the call, so that another provider may be tried; and
`UnknownError`, when nobody knows whether it has done what it was asked for. A time-out after the request was sent, a
reset, a 5xx and an answer that cannot be read are all unknown. Only the engine decides what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from core.errors import Refusal

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


class Standing(StrEnum):
    """The standing of a payment at its provider."""

    OPEN = "open"
    """Nobody has paid, and somebody may."""
    PROCESSING = "processing"
    """Somebody has paid, and the provider does not know yet whether the money comes."""
    PAID = "paid"
    FAILED = "failed"
    """It was not paid, and will not be."""
    CANCELED = "canceled"
    EXPIRED = "expired"
    ABSENT = "absent"
    """The provider has never heard of it."""


class Method(StrEnum):
    """The way in which the payer is asked."""

    HOSTED_CARD = "hosted_card"
    PAYMENT_LINK = "payment_link"
    PHONE = "phone"
    """A message to the payer's phone, as Kaspi sends it."""


class Recurrence(NamedTuple):
    """A payment that repeats: once in `every` of `interval` (day, week, month, year)."""

    interval: str
    every: int


class Order(NamedTuple):
    """One attempt's order to a provider: the same for every repetition, like its `key`.

    `amount` is in the ledger's minor units of `currency`. `key` is the provider's idempotency key and derived from the
    attempt, so that a repeated order is one order. `terms` are the provider's own settings of a merchant, such as a
    BIN or a device token; they are secrets.
    """

    attempt: UUID
    key: str
    amount: int
    currency: str
    method: Method
    title: str
    reference: str
    recurrence: Recurrence | None = None
    customer: str | None = None
    phone: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    metadata: Mapping[str, str] = {}
    terms: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Name the attempt alone: a traceback shows neither a person's phone nor a merchant's secrets."""
        return f"Order({self.attempt})"


class Handle(NamedTuple):
    """The names under which a provider knows an attempt: the order, the provider's id (None: not known), others.

    `wanted` says that nobody has given the payment up. A provider like PayPal, whose payer approves first and whose
    money is taken by a call of ours, takes it only then, in `look`.
    """

    order: Order
    provider_id: str | None
    names: Mapping[str, str] = {}
    wanted: bool = False


class Sight(NamedTuple):
    """A provider's account of a payment: from an answer, a poll or an event.

    `amount` and `refunded` are in the ledger's minor units of `currency`, None where the provider does not say. `word`
    is the provider's own word for the standing, for people. `names` are further ids to be kept, such as that of a
    subscription. `fee` is the provider's own fee, where it tells one.
    """

    standing: Standing
    provider_id: str | None = None
    amount: int | None = None
    currency: str | None = None
    refunded: int | None = None
    fee: int | None = None
    url: str | None = None
    expires_at: datetime | None = None
    word: str = ""
    names: Mapping[str, str] = {}


class RefundSight(NamedTuple):
    """A provider's account of one refund. `done` None: the provider is still at work on it."""

    done: bool | None
    provider_id: str | None = None
    amount: int | None = None
    word: str = ""


class Notice(NamedTuple):
    """An event of a provider as far as it is about a payment: the names by which the attempt is found, and the sight.

    `dispute` is the amount that the bank has taken from us for a payer, in `dispute_currency` (None: the payment's);
    negative when it has given it back. `renewal` is the provider's id of a later payment of an order that repeats: the
    sight is then of that payment alone.
    """

    names: Sequence[str]
    sight: Sight
    refund: RefundSight | None = None
    dispute: int | None = None
    renewal: str | None = None
    dispute_currency: str | None = None


class DeclinedError(Refusal):
    """The provider has said no, so nothing was charged. `code` and `detail` are ours, `word` is the provider's own."""

    def __init__(self, detail: str, *, code: str = "provider_declined", word: str = "", **extra: Any) -> None:
        super().__init__(code, detail, **extra)
        self.word = word


class UnsentError(Refusal):
    """The provider has certainly not done what it was asked for, as it did not get the call or put it off."""

    def __init__(
        self, detail: str, *, code: str = "provider_unreachable", retry_after: float | None = None
    ) -> None:
        super().__init__(code, detail, retry_after=retry_after)


class UnknownError(Refusal):
    """Nobody knows whether the provider has done what it was asked for."""

    def __init__(self, detail: str, *, code: str = "provider_unknown") -> None:
        super().__init__(code, detail)


REMEMBERED: Final[Mapping[str, timedelta]] = {
    "simulator": timedelta.max,
    # Its token is made of the payment, the merchant and the provider's alias.
    "links": timedelta.max,
    # https://docs.stripe.com/api/idempotent_requests
    "stripe": timedelta(hours=24),
    # https://developer.paypal.com/api/rest/reference/idempotency/ (captures and refunds are known for 45 days)
    "paypal": timedelta(hours=6),
    # https://developers.cloudpayments.ru/en/#idempotency
    "cloudpayments": timedelta(hours=1),
    "kaspi": timedelta(0),
}
"""The time for which a provider knows a key, by the provider's name. A refund repeated later is a second refund."""

RHYTHMS: Final[Mapping[str, Sequence[tuple[timedelta, float]]]] = {
    # The bank sends no events, so its answers are all that tells of a payment: the payer stands at the till for some
    # minutes, and may pay within a day. After that a late payment is rare, and is still found.
    "kaspi": (
        (timedelta(minutes=10), 15.0),
        (timedelta(hours=24), 180.0),
        (timedelta(days=7), 3_600.0),
        (timedelta.max, 86_400.0),
    ),
}
"""The pause between two looks in seconds, by the provider's name and the age of the attempt that it holds until."""

EXPIRE_DATE: Final = "expire_date"
TEXTS: Final = frozenset({EXPIRE_DATE})
"""Entries of a sight's `names` that name nothing: words of the provider that a surface repeats as they came."""


class Provider(Protocol):
    """One provider. Every call raises DeclinedError, UnsentError or UnknownError, within a bounded time."""

    name: str
    repeats: bool
    """Whether an order may be repeated under its key: the provider then answers as before and charges nothing twice.

    REMEMBERED tells for how long that holds.
    """

    async def create(self, order: Order) -> Sight:
        """Ask for the payment. Never repeated by the provider's own code unless `repeats` allows it."""

    async def look(self, handle: Handle) -> Sight:
        """Ask how the payment stands; ABSENT only where the provider is known to answer truly for it."""

    async def cancel(self, handle: Handle) -> Sight:
        """Let nobody pay any more; return how the payment stands then, which may be PAID."""

    async def refund(self, handle: Handle, key: str, amount: int) -> RefundSight:
        """Give back `amount`, once under `key`."""

    def read(self, event_type: str, body: bytes) -> Notice | None:
        """Read a verified event; None if it is about no payment. Raises ValueError for one that makes no sense."""

    async def close(self) -> None:
        """Close connections."""
