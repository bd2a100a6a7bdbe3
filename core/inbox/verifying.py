"""Verifiers: each takes raw bytes and headers, and returns a new event or raises a refusal with a stable code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from core.errors import Refusal

if TYPE_CHECKING:
    from core.inbox.intake import NewEvent

# The columns of ids and types take so many bytes.
MAX_TEXT_BYTES: Final = 255
LAST_SECOND: Final = 253_402_300_799
LAST_YEAR: Final = 9999


class NotGenuine(Refusal):
    """The bytes are not those that the provider signed.

    `reason` is a stable word for logs. The sender is not told it, because it would help nobody but a forger.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("invalid_signature", "Invalid signature")
        self.reason = reason


class Verifier(Protocol):
    """The verifier of one provider or source.

    `headers` have lower-case names; a header that came several times is joined with commas (RFC 9110, section 5.3).
    `now` is in Unix seconds.

    `verify` raises NotGenuine, Refusal `malformed_json` or `invalid_request` for bytes that are no event, and
    Unavailable when the answer cannot be known now.
    """

    @property
    def provider(self) -> str:
        """The first half of the event's key in the inbox."""

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Return a genuine event as the inbox stores it."""


def is_storable(text: str) -> bool:
    """Whether `text` fits the columns of the inbox; NUL and lone surrogates, among others, do not."""
    return text.isprintable() and len(text.encode()) <= MAX_TEXT_BYTES


def kept(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the `headers` of these `names`. Bytes that are no UTF-8 become question marks."""
    return {name: headers[name].encode(errors="replace").decode() for name in names if name in headers}


def unreadable() -> Refusal:
    """Return the refusal of a body that is no event, in the words of the contract."""
    return Refusal("malformed_json", "Invalid JSON payload")


def missing_fields() -> Refusal:
    """Return the refusal of an event without an id or a type, in the words of the contract."""
    return Refusal("invalid_request", "Missing required fields")


def moment_of(seconds: int) -> datetime | None:
    """Return the time of a provider's Unix seconds, or None when they are out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= LAST_SECOND else None


def read_moment(text: str) -> datetime | None:
    """Return the time of an ISO 8601 text, which is in UTC unless it has an offset; None for any other text.

    The first and the last year of the calendar are none, since PostgreSQL's driver writes their ends as infinite.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1 < found.year < LAST_YEAR:
        return None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None
