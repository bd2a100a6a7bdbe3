"""Requests of the contract, and its rules for them in its order, with its words. The first rule that fails is told."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payments.orchestration.shown import METHODS, ONE_TIME, RECURRING, STATUSES, STRIPE
from core.provider_units import from_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.payments.states import State

INTERVALS: Final = frozenset({"day", "week", "month", "year"})
MOST_LISTED: Final = 500
LISTED: Final = 100
MOST_INT32: Final = 2**31 - 1
# The longest texts that the tables hold.
_MOST_LETTERS: Final = {
    "request_id": 128, "caller_service": 128, "resource_type": 128, "resource_id": 255, "customer_ref": 255,
    "recurring_interval": 16, "status_callback_url": 1024, "success_url": 1024, "cancel_url": 1024,
}  # fmt: skip

_encode = msgspec.json.Encoder(order="deterministic").encode


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that is asked for, with every member as it came; a member that was left out is zero or empty."""

    request_id: str = ""
    caller_service: str = ""
    resource_type: str = ""
    resource_id: str = ""
    customer_ref: str = ""
    amount_cents: int = 0
    currency: str = ""
    payment_method: int = 0
    payment_type: int = 0
    provider: int = 0
    recurring_interval: str = ""
    recurring_interval_count: int = 0
    status_callback_url: str = ""
    success_url: str = ""
    cancel_url: str = ""
    metadata: dict[str, str] = {}

    def tidied(self) -> NewOrder:
        """Return the request as it counts: texts without blanks at their edges, the currency in upper case.

        Provider 0 is Stripe, too.
        """
        texts = {name: getattr(self, name).strip() for name in _TEXTS}
        texts["currency"] = texts["currency"].upper()
        return msgspec.structs.replace(self, **texts, provider=self.provider or STRIPE)

    def check(self) -> None:
        """Raise Refusal `invalid_request` with the contract's words; the request has been tidied."""
        for problem in self._problems():
            raise Refusal("invalid_request", problem)

    def check_new(self) -> None:
        """Raise Refusal `invalid_request` for money that the provider does not take; a known request is not asked."""
        if self.amount_cents > MAX_AMOUNT_MINOR:
            raise Refusal("invalid_request", "amount_cents is too large")
        try:
            from_ledger("stripe", self.amount_cents, self.currency)
        except ValueError:
            refusal = Refusal("invalid_request", "currency is not supported, or not in this amount")
        else:
            return
        raise refusal

    def digest(self) -> bytes:
        """Return the digest by which a repeated request is compared."""
        return hashlib.sha256(_encode(self)).digest()

    def _problems(self) -> Iterator[str]:  # noqa: C901, PLR0912 - a straight line of the contract's rules
        for name in ("request_id", "caller_service", "resource_type", "resource_id"):
            if not getattr(self, name):
                yield f"{name} is required"
        if self.amount_cents <= 0:
            yield "amount_cents must be > 0"
        if len(self.currency.encode(errors="replace")) != 3:
            yield "currency must be 3 letters"
        if self.payment_method not in METHODS:
            yield "payment_method must be hosted_card or payment_link"
        if self.payment_type not in {ONE_TIME, RECURRING}:
            yield "payment_type must be one_time or recurring"
        if self.provider != STRIPE:
            yield "provider is invalid"
        if not self.status_callback_url:
            yield "status_callback_url is required"
        if self.payment_type == RECURRING:
            if self.recurring_interval not in INTERVALS:
                yield "recurring_interval must be day, week, month, or year"
            if self.recurring_interval_count <= 0:
                yield "recurring_interval_count must be > 0"
        # The rules from here on are ours: the service before answered with its database's or its provider's error.
        for name, most in _MOST_LETTERS.items():
            if len(getattr(self, name)) > most:
                yield f"{name} must have at most {most} characters"
        if any("\0" in text for text in self._texts()):
            yield "texts must not have a NUL character"
        if not all(map(is_utf8, self._texts())):
            yield "texts must be UTF-8"

    def _texts(self) -> Iterator[str]:
        yield from (getattr(self, name) for name in _TEXTS)
        yield from self.metadata
        yield from self.metadata.values()


_TEXTS: Final = tuple(field.name for field in msgspec.structs.fields(NewOrder) if field.type is str)


def is_utf8(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, as stands for each byte of a header that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A list that is asked for: texts that are empty, a status of None and provider 0 leave nothing out."""

    request_id: str = ""
    caller_service: str = ""
    resource_type: str = ""
    resource_id: str = ""
    status: int | None = None
    provider: int = 0
    limit: int = 0
    offset: int = 0

    def check(self) -> None:
        """Raise Refusal `invalid_request` with the contract's words."""
        if not 0 <= self.limit <= MOST_LISTED:
            raise Refusal("invalid_request", "limit must be between 1 and 500")
        if self.offset < 0:
            raise Refusal("invalid_request", "offset must be >= 0")
        if self.status is not None and self.status not in STATUSES.values():
            raise Refusal("invalid_request", "invalid status")

    def states(self) -> list[State] | None:
        """Return the states of the engine that are shown as the status; None for every one."""
        return (
            None
            if self.status is None
            else [one for one, number in STATUSES.items() if number == self.status]
        )
