"""Matching: each row of a provider's report against the payments and the ledger, in sets, by one class for each row.

The rows go into a temporary table of one transaction, which sees one moment and changes nothing but the record of the
comparison. The three ways are the report, the levels of the attempts, and the entries on the clearing account.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from core.database import queries
from core.payments.accounts import clearing_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from datetime import datetime, timedelta
    from uuid import UUID

    from core.database import Connection, Database, Query, Row
    from core.payments.reports.reading import Line

_sql = queries(__name__)

PARTS: Final = {
    "payment.paid": "paid",
    "payment.foreign": "paid",
    "payment.refunded": "refunded",
    "payment.foreign_returned": "refunded",
    "payment.dispute_taken": "disputed",
    "payment.dispute_returned": "disputed",
    "provider.payout": "payout",
    "provider.fee": "fee",
}
"""The part of a report that tells of each kind of posting at a clearing account. Fees of payments are levels."""

# A report is told of as it is read, once for so many rows.
PROGRESS_ROWS: Final = 100_000
# A report of more rows is joined with whole tables, which takes seconds; a smaller one by look-ups.
LARGE_ROWS: Final = 20_000
# Differences are fetched so many at once.
PAGE: Final = 1_000

_COLUMNS: Final = (
    "no", "line", "part", "row_id", "names", "own", "amount", "fee", "currency", "at", "problem"
)  # fmt: skip


class Class(StrEnum):
    """The class of a row; each row has exactly one."""

    MATCHED = "matched"
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT = "amount"
    CURRENCY = "currency"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNREADABLE = "unreadable"


class Period(NamedTuple):
    """The time in which the ledger's movements are expected in the report: from `since` to before `until`."""

    since: datetime | None
    until: datetime | None


class Count(NamedTuple):
    """The rows of one class, part and currency, with the sums of both sides in minor units."""

    class_: Class
    part: str
    currency: str
    rows: int
    there: int
    here: int


class Difference(NamedTuple):
    """A row, or a movement of the ledger that no row tells of (`line` is None), and the cause of the difference.

    Amounts are minor units: `there` in the report, `here` in the ledger.
    """

    line: int | None
    class_: Class
    part: str
    row: str
    name: str
    payment: UUID | None
    attempt: str
    currency: str
    there: int | None
    here: int | None
    at_there: datetime | None
    at_here: datetime | None
    detail: str


class Summary(NamedTuple):
    """The result of a comparison. `fees` are those that the report tells and that nobody has told here."""

    period: Period
    counts: list[Count]
    fees: dict[str, int]

    def rows(self, class_: Class) -> int:
        """Return the number of rows of a class."""
        return sum(count.rows for count in self.counts if count.class_ is class_)

    @property
    def clean(self) -> bool:
        """Whether everything matches."""
        return all(count.class_ is Class.MATCHED for count in self.counts)


async def match(
    database: Database,
    provider: str,
    lines: Iterable[Line],
    *,
    file: str,
    period: Period,
    late_after: timedelta,
    on_progress: Callable[[str, int], None] = lambda _stage, _rows: None,
    on_difference: Callable[[Difference], None] = lambda _difference: None,
) -> Summary:
    """Compare a report and keep the counts; the differences go to `on_difference`, in the order of the report.

    An end of the period that is None is that of the times in the report.
    """
    async with database.transaction() as connection:
        await connection.execute(_sql.report_snapshot)
        await connection.execute(_sql.report_memory)
        for table in _TABLES:
            await connection.execute(table)
        period, rows, most_names = await _load(connection, lines, period, on_progress)
        on_progress("compare", 0)
        joins = _sql.report_joins if rows > LARGE_ROWS else _sql.report_lookups
        await connection.execute(joins)
        await _compare(connection, provider, period, late_after, most_names, joins)
        counts = [
            Count(
                Class(row["class"]),
                row["part"],
                row["currency"],
                row["rows"],
                int(row["there"]),
                int(row["here"]),
            )
            for row in await connection.fetch(_sql.report_counts)
        ]
        fees = {row["currency"]: int(row["fees"]) for row in await connection.fetch(_sql.report_fees)}
        async for difference in _differences(connection):
            on_difference(difference)
        summary = Summary(period, counts, fees)
        totals = {class_: summary.rows(class_) for class_ in Class}
        text = msgspec.json.encode(totals).decode()
        await connection.execute(_sql.record_report, provider, file[-255:], *period, text)
    return summary


_TABLES: Final = (
    _sql.make_report_lines,
    _sql.make_report_found,
    _sql.make_report_rows,
    _sql.make_report_transfers,
    _sql.make_report_moves,
    _sql.make_report_sums,
    _sql.make_report_pairs,
    _sql.make_report_verdicts,
)


async def _load(
    connection: Connection, lines: Iterable[Line], period: Period, on_progress: Callable[[str, int], None]
) -> tuple[Period, int, int]:
    """Copy the rows; return the period with the ends that it had not, the rows, and the most names that a row has."""
    first: datetime | None = None
    last: datetime | None = None
    no = most_names = 0

    def records() -> Iterator[tuple[Any, ...]]:
        nonlocal first, last, no, most_names
        for no, line in enumerate(lines, 1):
            at = line.at
            if at is not None:
                first = at if first is None or at < first else first
                last = at if last is None or at > last else last
            most_names = max(most_names, len(line.names))
            if no % PROGRESS_ROWS == 0:
                on_progress("read", no)
            yield (no, *line)

    await connection.raw.copy_records_to_table("report_lines", columns=_COLUMNS, records=records())
    return Period(period.since or first, period.until or last), no, most_names


async def _compare(
    connection: Connection,
    provider: str,
    period: Period,
    late_after: timedelta,
    most_names: int,
    joins: Query,
) -> None:
    clearing = clearing_account(provider, "")
    await connection.execute(_sql.analyze_lines)
    kinds, parts = list(PARTS), list(PARTS.values())
    await connection.execute(_sql.find_by_own_id, provider)
    for place in range(1, most_names + 1):
        await connection.execute(_sql.analyze_found)
        await connection.execute(_sql.find_by_name, provider, place)
    await connection.execute(_sql.find_by_refund, provider)
    await connection.execute(_sql.analyze_found)
    await connection.execute(_sql.fill_report_rows)
    await connection.execute(_sql.analyze_rows)
    await connection.execute(_sql.find_period_transfers, provider, *period, kinds, parts)
    await connection.execute(_sql.analyze_transfers)
    await connection.execute(_sql.fill_report_moves, clearing, *period, 1)
    await connection.execute(_sql.fill_moves_without_currency, provider, *period)
    await connection.execute(_sql.analyze_moves)
    await connection.execute(_sql.fill_report_sums)
    await connection.execute(_sql.analyze_sums)
    # The period explains most rows, and the postings of the others are few.
    await connection.execute(_sql.report_lookups)
    await connection.execute(_sql.find_other_transfers, provider, kinds, parts)
    await connection.execute(_sql.fill_report_moves, clearing, *period, 2)
    await connection.execute(_sql.add_other_sums)
    await connection.execute(joins)
    await connection.execute(_sql.pair_equal_amounts)
    await connection.execute(_sql.pair_other_amounts)
    await connection.execute(_sql.analyze_pairs)
    await connection.execute(_sql.judge_rows, late_after.total_seconds())
    await connection.execute(_sql.judge_unreadable)
    await connection.execute(_sql.judge_moves)


async def _differences(connection: Connection) -> AsyncIterator[Difference]:
    async for row in connection.raw.cursor(_sql.report_differences.text, prefetch=PAGE):
        yield Difference(
            row["line"],
            Class(row["class"]),
            row["part"],
            row["row_id"],
            row["name"],
            row["payment_id"],
            row["key"],
            row["currency"],
            row["there"],
            row["here"],
            row["at"],
            row["here_at"],
            _detail(row),
        )


def _detail(row: Row) -> str:
    """Return the cause of a difference in words."""
    part, there, here = row["part"], row["there"], row["here"]
    missing = (
        "this type of row is not known" if part == "other"
        else "not posted yet" if part in {"payout", "fee"}
        else "no attempt at a payment has these names" if row["state"] is None
        else f"the attempt is {row['state']} here, with {row['level']}"
    )  # fmt: skip
    return {
        "twin": "the report has this row twice",
        "second": "the payment was paid once here",
        "other": f"asked for in {row['asked_in']}",
        "none": missing,
        "more": "the ledger has fewer such movements",
        "report": f"{there} there, {here} here",
        "payment": f"the payment says {row['level']}, and the ledger otherwise",
        "fee": f"the fee is {row['fee']} there and {row['told_fee']} here",
        "apart": "recorded here at another time",
    }.get(row["cause"] or "", row["problem"] or "the report does not have it")
