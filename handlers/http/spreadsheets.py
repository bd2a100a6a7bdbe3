"""Cells of a CSV that people open in a spreadsheet: a text stays a text there, and runs nothing."""

from __future__ import annotations

import unicodedata
from typing import Final

# A spreadsheet takes a text that begins so for a formula, `-2-3` and `+963944123456` included; wide signs and blanks
# before a sign count as well. A quote that was there is quoted, so that no two texts look alike.
_BEGINS_FORMULA: Final = frozenset("=+-@'")


def cell(value: object) -> object:
    """Return a value for a cell: a text that would be run gets a quote in front, which spreadsheets do not show."""
    if not isinstance(value, str):
        return value
    for character in value:
        if character in "\t\r\n" or unicodedata.normalize("NFKC", character) in _BEGINS_FORMULA:
            return f"'{value}"
        if not character.isspace() and unicodedata.category(character) != "Cf":
            break
    return value
