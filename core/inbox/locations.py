"""Locations: the places in a request at which a source writes event id, type and object, in a header or in the body.

A location is a text: `header:X-GitHub-Delivery`, or a JSON pointer (RFC 6901) such as `/data/object/id`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from core.inbox.verifying import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATTERN: Final = r"^(header:[A-Za-z0-9-]{1,64}|(/[^/\x00-\x1f\x7f]{1,64}){1,8})$"
MAX_LENGTH: Final = 600

HEADER_PREFIX: Final = "header:"
_MOST_NUMBER: Final = 10**20
# This text joins the parts of an event id that is made of several.
_BETWEEN: Final = ":"


class Payload:
    """The headers and the body of one request; the body is parsed when a location first asks for it."""

    __slots__ = ("_body", "_headers", "_tree")

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        """`headers` have lower-case names."""
        self._body = body
        self._headers = headers
        self._tree: Any = msgspec.UNSET

    def text_at(self, location: str) -> str | None:
        """Return the text or whole number at `location`, or None when there is neither.

        Raises Refusal `malformed_json` when the location is in the body and the body is no JSON object.
        """
        if location.startswith(HEADER_PREFIX):
            return self._headers.get(location.removeprefix(HEADER_PREFIX).lower())
        value: Any = self._object()
        for part in location.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and name.isascii() and name.isdigit():
                value = value[int(name)] if int(name) < len(value) else None
            else:
                return None
        # A number of thousands of digits is no id, and Python refuses to write one.
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_NUMBER:
            return str(value)
        return value if isinstance(value, str) else None

    def joined(self, locations: Sequence[str]) -> str | None:
        """Return the texts at all `locations` as one, or None when one of them is absent or empty."""
        texts = [self.text_at(location) for location in locations]
        return _BETWEEN.join(text for text in texts if text) if all(texts) else None

    def _object(self) -> dict[str, Any]:
        if self._tree is msgspec.UNSET:
            try:
                self._tree = msgspec.json.decode(self._body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise unreadable() from None
        if not isinstance(self._tree, dict):
            raise unreadable()
        return self._tree
