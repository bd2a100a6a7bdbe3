"""What every provider's verifier is: raw bytes and headers in, a receipt out, or a refusal with a stable code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from core.errors import Refusal

if TYPE_CHECKING:
    from core.inbox.intake import NewEvent

# PostgreSQL's own limit on the columns of ids and types.
MAX_TEXT_BYTES: Final = 255
LAST_SECOND: Final = 253_402_300_799


class NotGenuine(Refusal):
    """The bytes are not what the provider signed. `reason` is a stable word for logs; the sender is not told it.

    What exactly is wrong would help nobody but a forger.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("invalid_signature", "Invalid signature")
        self.reason = reason


class Verifier(Protocol):
    """The verifier of one provider.

    `headers` have lower-case names; a header that came several times is joined with commas, as RFC 9110, section 5.3,
    says it means. `now` is in Unix seconds.

    `verify` raises NotGenuine, Refusal `malformed_json` or `invalid_request` for bytes that are no event, and
    Unavailable when it cannot be known now.
    """

    @property
    def provider(self) -> str:
        """The first half of the event's key in the inbox."""

    async def verify(self, body: bytes, headers: Mapping[str, str], now: float) -> NewEvent:
        """Return what is stored of a genuine event."""


def is_storable(text: str) -> bool:
    """Say whether `text` fits the columns of the inbox. NUL and lone surrogates, among others, do not."""
    return text.isprintable() and len(text.encode()) <= MAX_TEXT_BYTES


def kept(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return those of the `headers` that are stored. Bytes in them that are no UTF-8 become question marks."""
    return {name: headers[name].encode(errors="replace").decode() for name in names if name in headers}


def unreadable() -> Refusal:
    """Return the refusal of a body that is no event, in the words of the existing contract."""
    return Refusal("malformed_json", "Invalid JSON payload")


def missing_fields() -> Refusal:
    """Return the refusal of an event without an id or a type, in the words of the existing contract."""
    return Refusal("invalid_request", "Missing required fields")


def moment_of(seconds: int) -> datetime | None:
    """Return the time of a provider's clock, or None when it is out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= LAST_SECOND else None


def read_moment(text: str) -> datetime | None:
    """Return the time that an ISO 8601 text means, UTC when it does not say, or None when it means none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None
