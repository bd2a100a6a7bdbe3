"""Partitions by time: the next ones are made ahead, and those of which every row is old are taken off.

`docs/retention.md` says which tables have partitions, and ADR 0036 why the others have none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.database import queries
from core.errors import Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from core.database import Database, Query
    from core.settings import Settings

_sql = queries(__name__)

# A partition more costs each plan over all of them some microseconds: what is kept for longer is cut into months.
MOST_DAYS_BY_DAY: Final = 60
# So long may the job that makes partitions stand still. Rows come into the rest then, long after an alarm.
DAYS_AHEAD: Final = 7
MONTHS_AHEAD_DAYS: Final = 62
# The audit forgets nothing that is younger, whatever the settings say.
LEAST_AUDIT_DAYS: Final = 30
# A call that would have had to wait for readers of the whole table gives way after 200 ms and is repeated.
BUSY_TRIES: Final = 20
BUSY_PAUSE_SECONDS: Final = 0.5


class Kept(NamedTuple):
    """A table with partitions: the days for which rows are kept, 0 for ever, and the span of its partitions."""

    table: str
    days: int
    span: str
    days_ahead: int


class Detached(NamedTuple):
    """A partition that is taken off its table; `archived_at` is None while it does not lie in the archive."""

    name: str
    parent: str
    from_at: datetime | None
    to_at: datetime
    archived_at: datetime | None


def kept_tables(settings: Settings) -> tuple[Kept, ...]:
    """Return the tables that have partitions, with what the settings say of them."""
    audit = settings.audit_retention_days
    return (
        _kept("webhook_attempts", settings.webhook_attempts_days),
        Kept("audit_events", max(audit, LEAST_AUDIT_DAYS) if audit else 0, "month", MONTHS_AHEAD_DAYS),
    )


def _kept(table: str, days: int) -> Kept:
    if days <= MOST_DAYS_BY_DAY:
        return Kept(table, days, "day", DAYS_AHEAD)
    return Kept(table, days, "month", MONTHS_AHEAD_DAYS)


async def make_ahead(database: Database, settings: Settings) -> int:
    """Make the next partition of each table that has too few ahead; return how many were made.

    Raises Unavailable where a table was busy, time and again; nothing of that table happened.
    """
    made = 0
    for kept in kept_tables(settings):
        name = await _patiently(database, _sql.make_partition, kept.table, kept.span, kept.days_ahead)
        made += name is not None
    return made


async def detach_old(database: Database, settings: Settings) -> str | None:
    """Take off one partition of which every row is old, and return its name; None where there is none.

    Raises Unavailable where its table was busy, time and again.
    """
    for kept in kept_tables(settings):
        if not kept.days:
            continue
        name = await _patiently(database, _sql.detach_partition, kept.table, kept.days)
        if name is not None:
            return name
    return None


async def detached(database: Database) -> list[Detached]:
    """Return the partitions that are taken off and still there, the oldest first."""
    return [Detached(**row) for row in await database.fetch(_sql.detached_partitions)]


async def drop(database: Database, name: str, *, unarchived: bool) -> bool:
    """Drop a partition that was taken off and archived, or any if nothing is archived; say whether it was there."""
    dropped: bool = await database.fetchval(_sql.drop_partition, name, unarchived)
    return dropped


async def _patiently(database: Database, query: Query, *arguments: Any) -> str | None:
    """Run a statement that gives way to readers and writers, until it has its turn."""
    for _ in range(BUSY_TRIES - 1):
        try:
            return await _name(database, query, *arguments)
        except Unavailable:
            await asyncio.sleep(BUSY_PAUSE_SECONDS)
    return await _name(database, query, *arguments)


async def _name(database: Database, query: Query, *arguments: Any) -> str | None:
    name: str | None = await database.fetchval(query, *arguments)
    return name
