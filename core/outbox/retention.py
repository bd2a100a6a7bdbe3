"""The removal of what is old: attempts, deliveries that are done, and events, each after days of its own.

A step removes a bounded number of rows and then rests for as long as that took, several times over, so that a night's
backlog is removed without being felt; steps follow each other until nothing is old.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from core import ids
from core.database import queries

if TYPE_CHECKING:
    from core.database import Database, Query
    from core.settings import Settings

_sql = queries(__name__)

# Rows of one statement: it takes some ten milliseconds, for which a resend or a fan-out may wait.
PRUNE_BATCH: Final = 1_000
# The pause after a step, as a multiple of its own time: pruning takes at most a quarter of one connection's time, and
# still removes several times as many rows as a busy service makes.
PAUSE: Final = 3.0

_START: Final = UUID(int=0)


async def prune_attempts(database: Database, days: int) -> int:
    """Remove up to PRUNE_BATCH attempts that are older than `days`; return how many.

    Those are attempts outside the partitions of a day, which go as a whole (`core.partitions.keeping`).
    """
    removed: int = await database.fetchval(_sql.prune_attempts, days, PRUNE_BATCH)
    return removed


class Outworn:
    """The removal of old rows by one worker. Deliveries go before their events.

    Attempts go with their deliveries where they would outlive them; no attempt goes where there is an archive, before
    it is there.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._attempts_days = settings.webhook_attempts_days
        self._archived = bool(settings.archive_url)
        outlive = settings.webhook_attempts_days > settings.webhook_deliveries_days
        self._deliveries = _Walk(
            _sql.prune_deliveries, settings.webhook_deliveries_days, outlive and not self._archived
        )
        self._events = _Walk(_sql.prune_events, settings.webhook_events_days)

    async def step(self) -> int:
        """Remove some old rows, rest a while, and return how many there were to look at."""
        started = time.monotonic()
        seen = 0 if self._archived else await prune_attempts(self._database, self._attempts_days)
        seen += await self._deliveries.step(self._database)
        seen += await self._events.step(self._database)
        if seen:
            await asyncio.sleep(PAUSE * (time.monotonic() - started))
        return seen


class _Walk:
    """A walk over a table in the order of its ids, from the oldest row to those that cannot be old yet.

    A step goes on where the last one has ended, since the dead entries of all that was removed lie at the beginning.
    Rows that could not be removed yet are met again by the next walk.
    """

    def __init__(self, statement: Query, days: int, *options: bool) -> None:
        self._statement = statement
        self._days = days
        self._options = options
        self._after = _START

    async def step(self, database: Database) -> int:
        if not self._days:
            return 0
        before = ids.first_uuid_at(datetime.now(UTC) - timedelta(days=self._days) + ids.CLOCK_SLACK)
        row = await database.fetchrow(
            self._statement, self._days, self._after, before, PRUNE_BATCH, *self._options
        )
        if row is None:
            raise LookupError("a count has a row")
        self._after = row["last"] or _START
        removed: int = row["removed"]
        return removed if row["last"] is None else PRUNE_BATCH
