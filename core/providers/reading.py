"""Reading of answers and events: strict where a wrong guess would cost money, blind to fields that we do not know."""

from __future__ import annotations

from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

_Kind = TypeVar("_Kind")

# The columns that ids, words and addresses are kept in take so many characters.
MOST_NAME: Final = 255
MOST_WORD: Final = 255
MOST_URL: Final = 2048


def decoded(body: bytes, kind: type[_Kind]) -> _Kind:
    """Return the JSON of a body as a `kind`; unknown fields are left out. Raises ValueError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from None


def name(value: str | int | None) -> str:
    """Return an id that a provider gives, as text. Raises ValueError for one that is absent or cannot be kept."""
    text = "" if value is None else str(value)
    if not (text and text.isprintable() and len(text) <= MOST_NAME):
        raise ValueError("an id is missing or is none")
    return text


def some_names(**values: str | int | None) -> dict[str, str]:
    """Return the ids that are there, by what they name."""
    return {key: name(value) for key, value in values.items() if value not in {None, ""}}


def page(url: str | None) -> str | None:
    """Return the address that a payer is sent to, or None. Raises ValueError for anything but http and https."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the payer's page is no web address")
    if len(url) > MOST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the payer's page cannot be kept")
    return url


def word(text: str | None) -> str:
    """Return a provider's own words as they may be shown and kept: one line of bounded length."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text or "")
    return shown[:MOST_WORD]


def currency(text: str) -> str:
    """Return a currency in upper case. Raises ValueError for anything but three letters."""
    if not (len(text) == 3 and text.isascii() and text.isalpha()):
        raise ValueError("the currency is none")
    return text.upper()
