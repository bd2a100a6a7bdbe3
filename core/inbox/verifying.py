"""Verifiers: each takes raw bytes and headers, and returns a new event or raises a refusal with a stable code.

One rule holds for all of them: an event whose signature holds, and whose id and type can be read, is stored. A refusal
would make the sender repeat the same bytes for days and then drop them. A person can help a dead letter instead.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from core.errors import Refusal

if TYPE_CHECKING:
    from core.inbox.intake import NewEvent

# The columns of ids and types take so many bytes.
MAX_TEXT_BYTES: Final = 255
LAST_SECOND: Final = 253_402_300_799
LAST_YEAR: Final = 9999
_MOST_SECONDS_DIGITS: Final = 12

# A header of signatures holds so many tokens. A sender that rotates has two.
MAX_TOKENS: Final = 16
MAX_SIGNATURE_HEADER: Final = 2048

# A value that is nested deeper is read as null, because Python's reader has a depth too. Our rules go four levels deep.
DEEPEST: Final = 64
# Texts, lists and objects in a body that is nearly JSON: a bound on the work of a sender who signs for the purpose.
MOST_PARTS: Final = 100_000
# Python refuses to read a number of thousands of digits.
_MOST_DIGITS: Final = 24
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


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
    found = {name: headers[name] for name in names if name in headers}
    return {
        name: value if value.isascii() else value.encode(errors="replace").decode()
        for name, value in found.items()
    }


def unreadable() -> Refusal:
    """Return the refusal of a body that is no event, in the words of the contract."""
    return Refusal("malformed_json", "Invalid JSON payload")


def missing_fields() -> Refusal:
    """Return the refusal of an event without an id or a type, in the words of the contract."""
    return Refusal("invalid_request", "Missing required fields")


def identified(event_id: object, event_type: object) -> tuple[str, str]:
    """Return an event's id and type as the inbox stores them.

    Raises Refusal `invalid_request` when one of them is empty, and `malformed_json` when one is no text that fits.
    """
    if not (isinstance(event_id, str) and isinstance(event_type, str)):
        raise unreadable()
    if not event_id or not event_type:
        raise missing_fields()
    if not (is_storable(event_id) and is_storable(event_type)):
        raise unreadable()
    return event_id, event_type


def object_named(found: object) -> str | None:
    """Return the id of an object as the inbox stores it, or None for anything that is no such id."""
    return found if isinstance(found, str) and found and is_storable(found) else None


def strict_json(body: bytes) -> Any:
    """Return the value of a body that is JSON to the letter (RFC 8259), or `msgspec.UNSET`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.UNSET


def read_json(body: bytes) -> Any:
    """Return the value of a body that is nearly JSON, as PHP and old Java write it. Raises Refusal `malformed_json`.

    Accepted are a byte-order mark, bytes of Latin-1, lone surrogates, control characters, NaN, and any depth. The
    strict reader comes first, because it is ten times as fast.
    """
    value = strict_json(body)
    if value is not msgspec.UNSET:
        return value
    try:
        return json.loads(_pruned(_decoded(body)), strict=False, parse_int=_whole)
    except (ValueError, RecursionError):
        raise unreadable() from None


def form_pieces(body: bytes) -> list[bytes]:
    """Return the `name=value` pieces of a form. A byte-order mark and pieces that name no field do not count."""
    return [piece for piece in body.removeprefix(codecs.BOM_UTF8).split(b"&") if b"=" in piece]


def begins_as_object(body: bytes) -> bool:
    """Whether the first character is a brace, in each encoding that JSON may have."""
    text = body.removeprefix(codecs.BOM_UTF8)
    encoding = json.detect_encoding(text)
    if encoding == "utf-8":
        return text.lstrip()[:1] == b"{"
    return text.decode(encoding, "replace").lstrip("\ufeff \t\r\n")[:1] == "{"


def read_object(body: bytes) -> dict[str, Any]:
    """Return the fields of a body that is nearly a JSON object. Raises Refusal `malformed_json`."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise unreadable()
    return value


def _decoded(body: bytes) -> str:
    text = body.removeprefix(codecs.BOM_UTF8)
    try:
        return text.decode(json.detect_encoding(text), "surrogatepass")
    except UnicodeDecodeError:
        # Every byte is a character of Latin-1, and different bytes are different texts: two ids never become one.
        return text.decode("latin-1")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _pruned(text: str) -> str:
    """Return JSON with null in the place of each value that is nested deeper than DEEPEST."""
    if sum(map(text.count, '"[{')) > 2 * MOST_PARTS:
        raise ValueError("there are too many parts")
    kept: list[str] = []
    depth = start = 0
    for match in _STRUCTURE.finditer(text):
        if match[0] in {"[", "{"}:
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[start : match.start()])
        elif match[0] in {"]", "}"}:
            depth -= 1
            if depth == DEEPEST:
                kept.append("null")
                start = match.end()
    if depth > DEEPEST:
        raise ValueError("the JSON ends inside of a value")
    return "".join([*kept, text[start:]])


def tokens_of(header: str) -> list[str]:
    """Return the tokens of a header that lists signatures, apart by commas or blanks; the first MAX_TOKENS of them.

    A header that came twice is joined by a comma. The caller ignores the tokens that it does not know, because a sender
    may add a scheme, and refuses when it knows none. Raises NotGenuine for a header that is too long.
    """
    if len(header) > MAX_SIGNATURE_HEADER:
        raise NotGenuine("header_too_long")
    return [token for token in re.split(r"[ \t,]+", header) if token][:MAX_TOKENS]


def moment_of(seconds: int) -> datetime | None:
    """Return the time of a provider's Unix seconds, or None when they are out of range."""
    return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= LAST_SECOND else None


def moment_in(value: object) -> datetime | None:
    """Return the time that a field tells, in Unix seconds or as ISO 8601; None when it tells neither."""
    if isinstance(value, str):
        is_seconds = value.isascii() and value.isdigit() and len(value) <= _MOST_SECONDS_DIGITS
        return moment_of(int(value)) if is_seconds else read_moment(value)
    return moment_of(value) if isinstance(value, int) and not isinstance(value, bool) else None


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
