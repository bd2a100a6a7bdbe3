"""Names of people and merchants, as others may safely read them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from core.errors import Refusal

# A phone has so many digits or more, with whatever stands between them.
PHONE_DIGITS: Final = 7
# One character shows so much at most where it stands for digits: the circled numbers end with 50.
_LARGEST_NUMBER: Final = 50

# Controls, formats (bidi marks, zero-width ones), surrogates, private use, and unassigned ones.
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
# Letters and marks that show nothing: Unicode's Default_Ignorable_Code_Point beyond those categories, and the empty
# Braille pattern.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_PHONE = re.compile(rf"[0-9](?:(?:[^0-9\w]|_)*[0-9]){{{PHONE_DIGITS - 1},}}")


def shown(name: str | None) -> str | None:
    """Return a stored name as it may be shown, None where nothing readable is left.

    >>> shown("A\u202enn\u200b  Smith"), shown("\u3164"), shown("+963 944 123 456")
    ('Ann Smith', None, None)
    """
    try:
        return None if name is None else read(name)
    except Refusal:
        return None


def is_seen(text: str) -> bool:
    """Whether a text shows anything: more than blanks and characters that nobody sees."""
    return any(
        not character.isspace() and unicodedata.category(character) not in _UNSEEN_CATEGORIES
        for character in _UNSEEN.sub("", text)
    )


def read(name: str) -> str | None:
    """Return a name that a client gives, without characters that nobody sees; None for an empty text, which is none.

    Raises Refusal `invalid_name` for a name of which nothing is left, that has no letter and no picture, or that reads
    as a phone.
    """
    if not name:
        return None
    spaced = "".join(
        " " if character.isspace() else character for character in unicodedata.normalize("NFC", name)
    )
    seen = "".join(
        character for character in spaced if unicodedata.category(character) not in _UNSEEN_CATEGORIES
    )
    left = " ".join(_UNSEEN.sub("", seen).split())
    if not any(
        unicodedata.category(character)[0] == "L" or unicodedata.category(character) == "So"
        for character in left
    ):
        raise Refusal("invalid_name", "A name has a letter, at least.")
    if _PHONE.search(_digits_read(unicodedata.normalize("NFKC", left))):
        raise Refusal("invalid_name", "A name does not hold a phone number.")
    return left


def _digits_read(text: str) -> str:
    """Return a text with 0 to 9 in the place of all that reads as digits: other scripts, circles, ideographs, tens."""
    return "".join(_digits_of(character) for character in text)


def _digits_of(character: str) -> str:
    value = unicodedata.numeric(character, -1.0)
    return str(int(value)) if value.is_integer() and 0 <= value <= _LARGEST_NUMBER else character
