"""Values: columns of three kinds of databases as one kind of Python values. None is guessed; a wrong one is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping


class ValueProblemError(ValueError):
    """The row has a value that cannot be carried over; the text names the column."""


class Values:
    """One row of a source."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row

    def text(self, name: str, most: int | None = None) -> str:
        """Return a text that must be there, of `most` characters at most."""
        found = self.text_or_none(name, most)
        if found is None:
            raise ValueProblemError(f"{name} is missing")
        return found

    def text_or_none(self, name: str, most: int | None = None) -> str | None:
        """Return a text, or None for null and for an empty one."""
        value = self.row[name]
        if value is None:
            return None
        text = value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
        if "\0" in text:
            raise ValueProblemError(f"{name} has a NUL character")
        if most is not None and len(text) > most:
            raise ValueProblemError(f"{name} has more than {most} characters")
        return text or None

    def id(self, name: str) -> UUID:
        """Return a UUID, stored as such, as 16 bytes or as a text with or without hyphens."""
        found = self.id_or_none(name)
        if found is None:
            raise ValueProblemError(f"{name} is missing")
        return found

    def id_or_none(self, name: str) -> UUID | None:
        """Return a UUID, or None for null."""
        value = self.row[name]
        if value is None:
            return None
        try:
            if isinstance(value, bytes) and len(value) == 16:
                return UUID(bytes=value)
            return UUID(str(value))
        except ValueError:
            raise ValueProblemError(f"{name} is no UUID") from None

    def whole(self, name: str, least: int | None = None, most: int | None = None) -> int:
        """Return a whole number within bounds, exactly."""
        number = self.decimal(name)
        if number != number.to_integral_value():
            raise ValueProblemError(f"{name} is no whole number")
        whole = int(number)
        if (least is not None and whole < least) or (most is not None and whole > most):
            raise ValueProblemError(f"{name} is {whole}, out of its bounds")
        return whole

    def whole_or_none(self, name: str, least: int | None = None, most: int | None = None) -> int | None:
        """Return a whole number, or None for null."""
        return None if self.row[name] is None else self.whole(name, least, most)

    def decimal(self, name: str) -> Decimal:
        """Return a number exactly. A binary fraction (SQLite's REAL) counts by its shortest decimal form."""
        value = self.row[name]
        try:
            number = Decimal(repr(value) if isinstance(value, float) else str(value))
        except InvalidOperation:
            raise ValueProblemError(f"{name} is no number") from None
        if not number.is_finite():
            raise ValueProblemError(f"{name} is no number")
        return number

    def units(self, name: str, scale: int) -> int:
        """Return an amount in units of 10 to the power of -`scale`. Digits beyond them are refused, never rounded."""
        sign, digits, exponent = self.decimal(name).as_tuple()
        shift = int(exponent) + scale
        number = int("".join(map(str, digits)))
        units, rest = divmod(number * 10 ** max(shift, 0), 10 ** max(-shift, 0))
        if rest:
            raise ValueProblemError(f"{name} has more than {scale} decimals")
        return int(-units if sign else units)

    def flag(self, name: str) -> bool:
        """Return whether a boolean, or a number that stands for one, is set; null is not."""
        value = self.row[name]
        if isinstance(value, bytes):  # MySQL's BIT(1)
            return any(value)
        return value not in {None, False, "0", "f", "false", ""}

    def time(self, name: str) -> datetime:
        """Return a moment. One without an offset is UTC, as all five services wrote it."""
        found = self.time_or_none(name)
        if found is None:
            raise ValueProblemError(f"{name} is missing")
        return found

    def time_or_none(self, name: str) -> datetime | None:
        """Return a moment, or None for null."""
        value = self.row[name]
        if value is None:
            return None
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            raise ValueProblemError(f"{name} is no time") from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

    def json(self, name: str) -> Any:
        """Return what a column of JSON holds, None for null."""
        value = self.row[name]
        if value is None or not isinstance(value, str | bytes):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueProblemError(f"{name} is no JSON") from None

    def one_of(self, name: str, allowed: frozenset[str], default: str) -> str:
        """Return a word in lower case that must be among `allowed`; null is `default`."""
        word = (self.text_or_none(name) or default).lower()
        if word not in allowed:
            raise ValueProblemError(f"{name} is {word[:40]!r}, which is not known")
        return word
