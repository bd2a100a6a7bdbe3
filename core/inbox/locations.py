"""Locations: the places in a request at which a source writes event id, type and object, in a header or in the body.

A location is a text: `header:X-GitHub-Delivery`, or a JSON pointer (RFC 6901) such as `/data/object/id`. A form counts
as an object of its fields, and a form with JSON in its field `payload`, as GitHub and Slack send it, as that JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from core.errors import Refusal
from core.inbox.verifying import form_pieces, read_json, read_object, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATTERN: Final = r"^(header:[A-Za-z0-9-]{1,64}|(/[^/\x00-\x1f\x7f]{1,64}){1,8})$"
MAX_LENGTH: Final = 600

HEADER_PREFIX: Final = "header:"
_MOST_NUMBER: Final = 10**20
# A form of a webhook has one field, or some forty.
_MOST_FIELDS: Final = 1_000
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

        Raises Refusal `malformed_json` when the location is in the body and the body is neither an object nor a form.
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

    def text_if_any(self, location: str | None) -> str | None:
        """Return the text at a `location` that an event can do without, or None, whatever the body is."""
        if location is None:
            return None
        try:
            return self.text_at(location)
        except Refusal:
            return None

    def joined(self, locations: Sequence[str]) -> str | None:
        """Return the texts at all `locations` as one, or None when one of them is absent or empty."""
        texts = [self.text_at(location) for location in locations]
        return _BETWEEN.join(text for text in texts if text) if all(texts) else None

    def _object(self) -> dict[str, Any]:
        if self._tree is msgspec.UNSET:
            try:
                self._tree = read_json(self._body)
            except Refusal:
                self._tree = _form(self._body)
        if not isinstance(self._tree, dict):
            raise unreadable()
        return self._tree


def _form(body: bytes) -> dict[str, Any] | None:
    """Return the fields of a form, or the JSON in its field `payload`; None for bytes that are no form."""
    # Latin-1 gives each byte a character, so that no byte is lost; the fields that name an event are ASCII.
    try:
        pairs = parse_qsl(
            b"&".join(form_pieces(body)).decode("latin-1"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="surrogateescape",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        return None
    fields: dict[str, Any] = dict(pairs)
    if len(fields) != len(pairs):
        return None
    try:
        return read_object(fields["payload"].encode("utf-8", "surrogateescape"))
    except (KeyError, UnicodeEncodeError, Refusal):
        return fields or None
