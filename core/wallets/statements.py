"""Merchants' statements and settlements: sales, fees and refunds.

The versions of an account are dense and rise with time, so a span of time is a range of versions. The range is found by
bisection and read in parts, each by a short SQL statement; the past does not change, so the parts fit together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from core.database import queries
from core.money import MAX_AMOUNT_MINOR
from core.wallets.books import wallet_account

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database

_sql = queries(__name__)

# One SQL statement reads at most so many entries, each in 20 us.
PART: Final = 2_000

Direction = Literal["in", "fee", "refund"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("in", "fee", "refund")


class Span(NamedTuple):
    """The entries of a wallet within a span of time: versions above `first_after` up to `last`."""

    account: str
    currency: str
    first_after: int
    last: int

    def parts(self) -> Iterator[tuple[int, int]]:
        """Yield the span's parts of at most PART entries: versions above the first number up to the second."""
        for start in range(self.first_after, self.last, PART):
            yield start, min(start + PART, self.last)


class Totals(NamedTuple):
    """The sums of a span in minor units; fees are negative where refunds returned more than was taken."""

    gross: int = 0
    fees: int = 0
    refunds: int = 0

    @property
    def net(self) -> int:
        """The money that the merchant keeps: sales less fees and refunds."""
        return self.gross - self.fees - self.refunds


class Line(NamedTuple):
    """A line of a statement; `amount` in minor units, negative for money that left. A returned fee is positive."""

    recorded_at: datetime
    direction: Direction
    amount: int
    transfer_id: UUID


class Merchant(NamedTuple):
    """A merchant in a settlement."""

    user_id: UUID
    wallet_id: UUID


async def span_of(database: Database | Connection, account: str, since: datetime, until: datetime) -> Span:
    """Return the span of the entries of an account from `since` to `until`, both included."""
    row = await database.fetchrow(_sql.statement_span, account, since, until)
    if row is None:
        raise LookupError(f"there is no account {account}")
    return Span(account, row["currency"], row["first_after"], row["last"])


async def totals_of(database: Database | Connection, span: Span) -> Totals:
    """Return the sums of a span, each at most 2^62 - 1."""
    gross = fees = refunds = 0
    for first_after, last in span.parts():
        row = await database.fetchrow(_sql.statement_totals, span.account, first_after, last)
        if row is not None:
            gross, fees, refunds = gross + row["gross"], fees + row["fees"], refunds + row["refunds"]
    return Totals(*(min(figure, MAX_AMOUNT_MINOR) for figure in (gross, fees, refunds)))


async def lines_of(database: Database, span: Span) -> AsyncGenerator[Line, None]:
    """Yield the lines of a span: all sales, then all fees, then all refunds, each oldest first."""
    for direction in DIRECTIONS:
        for first_after, last in span.parts():
            rows = await database.fetch(_sql.statement_lines, span.account, first_after, last, direction)
            for row in rows:
                yield Line(row["recorded_at"], direction, row["amount"], row["transfer_id"])


async def merchants_after(database: Database, user_id: UUID, limit: int) -> list[Merchant]:
    """Return up to `limit` merchants with ids above `user_id`."""
    rows = await database.fetch(_sql.list_merchants, user_id, limit)
    return [Merchant(row["id"], row["wallet_id"]) for row in rows]


async def settle(
    database: Database | Connection, merchant: Merchant, since: datetime, until: datetime
) -> tuple[str, Totals]:
    """Return the currency of a merchant's wallet, and the totals from `since` to `until`, both included."""
    span = await span_of(database, wallet_account(merchant.wallet_id), since, until)
    return span.currency, await totals_of(database, span)
