"""Reading: the lines of a provider's report, one after the other, in memory that does not grow with the file.

A row that cannot be read is a line with a problem, and costs no other row. A quotation mark that nothing closes would
swallow the rows after it; those are read again, each for itself.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
import re
from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR, decimals
from core.payments.reports.mapping import OF_PAYMENTS, Part
from core.provider_units import UNITS, UnknownUnitError, read_decimal, to_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from zoneinfo import ZoneInfo

    from core.payments.reports.mapping import Columns, Mapping

# The head of the file tells its encoding, its delimiter and its header; statements of banks have a preamble.
HEAD_BYTES: Final = 64 * 1024
HEAD_ROWS: Final = 50
# Names of one row that are looked up, and their letters: those of `payment_names`.
MOST_NAMES: Final = 8
MOST_LETTERS: Final = 255

# No account holds an amount of more; decimal arithmetic is exact to so many.
MOST_DIGITS: Final = 28

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The old encoding of Windows for Cyrillic: a file of a bank that is no UTF-8 has it.
_OLD: Final = "cp1251"
OWN_LETTERS: Final = 36
_OWN_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_SPACES: Final = dict.fromkeys(map(ord, " \u00a0\u2009\u202f'"))
# An amount with thousands in threes, or without any. Anything else is not guessed at.
_AMOUNTS: Final = {
    ".": re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?"),
    ",": re.compile(r"(?:\d+|\d{1,3}(?:\.\d{3})+)(?:,\d+)?"),
}
_DELIMITERS: Final = (",", ";", "\t", "|")
_SECONDS: Final = re.compile(r"\d{10}(?:\.\d+)?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS: Final = re.compile(r"\d{13}")


class Line(NamedTuple):
    """One row of a report as far as it is compared: amounts in minor units, `own` an attempt's id that it names.

    `row` names the row: a second one of that name is a duplicate. With a `problem` nothing else is known.
    """

    line: int
    part: str
    row: str
    names: Sequence[str] = ()
    own: UUID | None = None
    amount: int = 0
    fee: int | None = None
    currency: str = ""
    at: datetime | None = None
    problem: str | None = None


class _BadRowError(ValueError):
    """The row cannot be read, for the reason of the text."""


class Reader:
    """The lines of a report, to be iterated once. `ignored` counts rows that tell of no money."""

    def __init__(self, file: IO[bytes], mapping: Mapping, provider: str) -> None:
        """Find the header. Raises Refusal `invalid_request` for a file that has none with the columns."""
        self._mapping = mapping
        self._provider = provider
        self.ignored = 0
        head = file.read(HEAD_BYTES)
        file.seek(0)
        text = io.TextIOWrapper(file, _encoding_of(head, mapping), errors="replace", newline="")
        self._lines = _Lines(text)
        delimiter = mapping.delimiter or _delimiter_of(head.decode(text.encoding, "replace"), mapping.columns)
        self._rows = csv.reader(self._lines, delimiter=delimiter)
        self._header = self._find_header()
        self._cells = _cells_of(self._header, mapping.columns)

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines, in the order of the file."""
        convert = _Converter(self._mapping, self._provider, self._cells)
        ignoring = bool(self._mapping.ignore)
        while True:
            number = self._lines.begin()
            try:
                row = next(self._rows)
                if row and len(row) != len(self._header):
                    self._lines.again()
                    raise _BadRowError(f"the row has {len(row)} cells, and the header {len(self._header)}")
            except StopIteration:
                return
            except (csv.Error, _BadRowError) as error:
                if isinstance(error, csv.Error):
                    self._lines.again()
                if not self._is_ignored(self._lines.first):
                    yield Line(number, "", f"line {number}", problem=str(error))
                continue
            if not any(row) or (ignoring and self._is_ignored(row[0])):
                continue
            try:
                found = convert(number, row)
            except (_BadRowError, UnknownUnitError) as error:
                yield Line(number, "", f"line {number}", problem=str(error))
                continue
            self.ignored += not found
            yield from found

    def _is_ignored(self, start: str) -> bool:
        ignored = bool(self._mapping.ignore) and start.lstrip(' "').startswith(self._mapping.ignore)
        self.ignored += ignored
        return ignored

    def _find_header(self) -> list[str]:
        required = (self._mapping.columns.amount, self._mapping.columns.names)
        try:
            for row in itertools.islice(self._rows, HEAD_ROWS):
                names = [cell.strip() for cell in row]
                if all(any(name in names for name in wanted) for wanted in required):
                    return names
        except csv.Error as error:
            raise Refusal("invalid_request", f"The file is no CSV: {error}.") from None
        wanted = " and ".join(f"one of {', '.join(map(repr, each))}" for each in required)
        raise Refusal(
            "invalid_request", f"The file has no header with {wanted} in its first {HEAD_ROWS} rows."
        )


class _Lines:
    """The lines of a text, with those of the current row kept so that they can be read again."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._row: list[str] = []
        self._again: deque[str] = deque()
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._text)
        self._number += 1
        self._row.append(line)
        return line

    @property
    def first(self) -> str:
        """The first line of the current row."""
        return self._row[0] if self._row else ""

    def begin(self) -> int:
        """Begin a row, and return the number of its first line, counted from 1."""
        self._row.clear()
        return self._number + 1

    def again(self) -> None:
        """Let all lines of the row but for the first be read again."""
        self._number -= len(self._row) - 1
        self._again.extendleft(reversed(self._row[1:]))
        del self._row[1:]


class _Cells(NamedTuple):
    """The places of the cells in a row; None where the report has no such column."""

    amount: list[int]
    names: list[int]
    row: int | None
    type: int | None
    fee: int | None
    refunded: int | None
    currency: list[int]
    time: int | None


def _cells_of(header: Sequence[str], columns: Columns) -> _Cells:
    """Find the columns of a mapping in a header."""
    places = {name: place for place, name in reversed(list(enumerate(header)))}

    def all_of(names: Sequence[str]) -> list[int]:
        return [places[name] for name in names if name in places]

    def first(names: Sequence[str]) -> int | None:
        return next(iter(all_of(names)), None)

    return _Cells(
        all_of(columns.amount),
        all_of(columns.names),
        first(columns.row),
        first(columns.type),
        first(columns.fee),
        first(columns.refunded),
        all_of(columns.currency),
        first(columns.time),
    )


class _Converter:
    """Makes lines of rows. Texts that come again are converted once."""

    def __init__(self, mapping: Mapping, provider: str, cells: _Cells) -> None:
        self._mapping = mapping
        self._cells = cells
        self._minor = functools.lru_cache(65_536)(_money(mapping, provider))
        self._time = functools.partial(_time, zone=mapping.zone, formats=mapping.time_formats)

    def __call__(self, number: int, row: list[str]) -> list[Line]:
        """Return the lines of a row, none for one that tells of no money. Raises _BadRowError, UnknownUnitError."""
        cells, mapping = self._cells, self._mapping
        word = "" if cells.type is None else row[cells.type].strip()
        part = mapping.types.get(word.casefold(), Part.OTHER) if word else None
        if part is Part.NONE:
            return []
        amount_text = _first(row, cells.amount)
        currency = _first(row, cells.currency).upper() or mapping.currency or ""
        if not _CURRENCY.fullmatch(currency):
            raise _BadRowError(f"{currency!r} is no currency")
        amount = self._minor(amount_text, currency)
        if part is None:  # the sign tells, or the row is a payment
            part = Part.REFUNDED if amount < 0 else Part.PAID
            amount = abs(amount)
        elif not mapping.signed:
            amount = abs(amount)
        elif part is not Part.PAID:
            amount = -amount
        fee = self._fee(row, currency)
        names, own = _names(row, cells.names)
        at = None if cells.time is None else self._time(row[cells.time])
        own_row = "" if cells.row is None else row[cells.row].strip()
        # A provider's own fees and payouts have the id of their row.
        if not names and (part in OF_PAYMENTS or not own_row):
            raise _BadRowError("the row names no payment")
        if not own_row:
            own_row = "|".join((word, *names[:2], amount_text, str(at)))
        line = Line(number, part, _storable(own_row), names, own, amount, fee, currency, at)
        if cells.refunded is None or not (refunded := self._minor(row[cells.refunded] or "0", currency)):
            return [line]
        return [line, line._replace(part=Part.REFUNDED, amount=abs(refunded), fee=None)]

    def _fee(self, row: list[str], currency: str) -> int | None:
        """Return the fee, where it is told in the payment's own currency, which the last column of both has not."""
        cells = self._cells
        if cells.fee is None or not row[cells.fee].strip():
            return None
        own = _first(row, cells.currency[-1:]).upper() or currency
        fee = self._minor(row[cells.fee], own)
        return None if own != currency else fee if self._mapping.signed else abs(fee)


def _names(row: list[str], places: Sequence[int]) -> tuple[list[str], UUID | None]:
    names: list[str] = []
    own = None
    for place in places:
        name = _storable(row[place].strip())
        if not name or name in names:
            continue
        names.append(name)
        if own is None and len(name) == OWN_LETTERS and _OWN_ID.fullmatch(name):
            own = UUID(name)
    return names[:MOST_NAMES], own


def _storable(text: str) -> str:
    if "\0" in text:
        raise _BadRowError("the row has a NUL character")
    return text[:MOST_LETTERS]


def _first(row: list[str], places: Sequence[int]) -> str:
    """Return the first cell that is not empty."""
    for place in places:
        if text := row[place].strip():
            return text
    return ""


def _money(mapping: Mapping, provider: str) -> Callable[[str, str], int]:
    """Return the function from a text and a currency to the ledger's minor units."""
    known = provider in UNITS

    def minor(text: str, currency: str) -> int:
        number = _number(text, mapping.decimal)
        if mapping.unit == "minor":
            if number != int(number):
                raise _BadRowError(f"{text!r} has decimals")
            return to_ledger(provider, int(number), currency) if known else int(number)
        if known:
            return read_decimal(provider, number, currency)
        amount = number.scaleb(decimals(currency))
        if amount != int(amount) or abs(amount) > MAX_AMOUNT_MINOR:
            raise _BadRowError(f"{text!r} is no amount of {currency}")
        return int(amount)

    return minor


def _number(text: str, decimal: str) -> Decimal:
    """Read a number exactly, whichever way it is written. Raises _BadRowError for one that can be read in two ways."""
    left = text.strip().translate(_SPACES).replace("\u2212", "-")
    negative = left.startswith(("-", "(")) or left.endswith("-")
    left = left.strip("+-") if not left.startswith("(") else left[1:].removesuffix(")")
    mark = decimal if decimal != "auto" else _mark_of(left, text)
    if len(left) > MOST_DIGITS or not _AMOUNTS[mark].fullmatch(left):
        raise _BadRowError(f"{text[:40]!r} is no amount")
    number = Decimal(left.replace(",", "") if mark == "." else left.replace(".", "").replace(",", "."))
    return -number if negative else number


def _mark_of(left: str, text: str) -> str:
    """Return the decimal mark: the last of both, or the only one unless it could also stand before thousands."""
    comma, point = left.rfind(","), left.rfind(".")
    if comma >= 0 and point >= 0:
        return "," if comma > point else "."
    if comma < 0:
        return "."
    if re.fullmatch(r"\d{1,3}(,\d{3})+", left):
        raise _BadRowError(f"{text[:40]!r} can be read in two ways; set `decimal` in the mapping")
    return ","


def _time(text: str, *, zone: ZoneInfo, formats: Sequence[str]) -> datetime | None:
    text = text.strip()
    if not text:
        return None
    try:
        if _SECONDS.fullmatch(text):
            # A float would round the microsecond up at times.
            return _EPOCH + timedelta(microseconds=int(Decimal(text) * 1_000_000))
        if _MILLISECONDS.fullmatch(text):
            return _EPOCH + timedelta(milliseconds=int(text))
        found = _parsed(text, formats)
        if found.tzinfo is not None:
            return found
        # The driver sends every time as UTC; most reports have it already.
        return found.replace(tzinfo=UTC) if zone.key == "UTC" else found.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _BadRowError(f"{text[:40]!r} is no time") from None


def _parsed(text: str, formats: Sequence[str]) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        for each in formats:
            try:
                return datetime.strptime(text, each)  # noqa: DTZ007 - the caller gives it its zone
            except ValueError:
                continue
        raise


def _encoding_of(head: bytes, mapping: Mapping) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if mapping.encoding is not None:
        return mapping.encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return _OLD
    return "utf-8"


def _delimiter_of(head: str, columns: Columns) -> str:
    """Return the mark that parts the names of the columns, a comma where none does."""
    for line in head.splitlines()[:HEAD_ROWS]:
        for mark in _DELIMITERS:
            names = [name.strip(' "') for name in line.split(mark)]
            if all(any(name in names for name in wanted) for wanted in (columns.amount, columns.names)):
                return mark
    return ","
