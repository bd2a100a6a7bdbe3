"""Gauges that the database knows, such as the progress of workers: one that hangs cannot tell its own.

A process reads them for whoever scrapes it, and at most once in METRICS_INTERVAL_SECS: scrapes in between, and at the
same time, get what was read last. Each statement reads a few rows of an index, whatever the tables hold.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import msgspec

from core import metrics, migrations
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from core.database import Database, Row

Answer = TypeVar("Answer")

_sql = queries(__name__)

# Prometheus gives a scrape ten seconds by default, and the other gauges must arrive, too.
MEASURE_SECONDS: Final = 2.0
# The schema changes with a new version only, and the comparison reads some fifty files.
SCHEMA_SECONDS: Final = 60.0

# Questions that nobody waits for any more; without a reference they could be collected before they end.
_late: set[asyncio.Task[Any]] = set()


class Collector:
    """The reader of one process. `more` are functions that are told whether the database answers, and set others."""

    def __init__(
        self, database: Database, pace_seconds: float, *more: Callable[[bool], Awaitable[None]]
    ) -> None:
        self._database = database
        self._pace_seconds = pace_seconds
        self._more = more
        self._due = -math.inf
        self._schema_due = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def collect(self) -> None:
        """Set the gauges, unless they were set within the pace. Raises nothing."""
        if self._reading is None:
            if time.monotonic() < self._due:
                return
            self._reading = asyncio.create_task(self._read())
        # A scraper that hangs up takes no other one's figures away.
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        try:
            answers = await measure(self._database)
            if answers and time.monotonic() >= self._schema_due:
                self._schema_due = time.monotonic() + SCHEMA_SECONDS
                await _measure_schema(self._database)
            for each in self._more:
                await each(answers)
        finally:
            self._due = time.monotonic() + self._pace_seconds
            self._reading = None


async def measure(database: Database) -> bool:
    """Set the gauges, to NaN when the database does not answer within MEASURE_SECONDS; return whether it does."""
    row = await ask(database.fetchrow(_sql.pulse))
    metrics.DATABASE_UP.set(row is not None)
    _tell(row)
    if row is None:
        return False  # the other questions would wait as long, and what was told of reports stays true
    for report in await ask(database.fetch(_sql.latest_reports)) or ():
        provider = report["provider"]
        metrics.PROVIDER_REPORT_LAST_RUN.labels(provider).set(report["compared_at"].timestamp())
        for class_, rows in msgspec.json.decode(report["counts"]).items():
            metrics.PROVIDER_REPORT_ROWS.labels(provider, class_).set(rows)
    return True


_OF_PULSE: Final = {
    "feed_lag_seconds": metrics.FEED_LAG_SECONDS,
    "heartbeat_age_seconds": metrics.WORKER_HEARTBEAT_AGE,
    "backup_age_seconds": metrics.BACKUP_AGE,
    "dead_letters": metrics.DLQ_PENDING,
    "dead_letter_seconds": metrics.DLQ_OLDEST,
    "inbox_events": metrics.INBOX_PENDING,
    "inbox_seconds": metrics.INBOX_OLDEST,
    "outbox_events": metrics.OUTBOX_PENDING,
    "outbox_seconds": metrics.OUTBOX_OLDEST,
    "deliveries": metrics.DELIVERIES_PENDING,
    "delivery_seconds": metrics.DELIVERIES_OLDEST,
    "holds": metrics.HOLDS_OPEN,
    "hold_seconds": metrics.HOLDS_OVERDUE,
    "reconciled_at": metrics.RECONCILE_LAST_RUN,
    "wrong_balances": metrics.RECONCILE_FINDINGS.labels("balances"),
    "wrong_transfers": metrics.RECONCILE_FINDINGS.labels("transfers"),
}


def _tell(row: Row | None) -> None:
    for column, gauge in _OF_PULSE.items():
        gauge.set(math.nan if row is None else row[column])


async def _measure_schema(database: Database) -> None:
    rows = await ask(database.fetch(_sql.applied_files))
    try:
        pending = (
            math.nan
            if rows is None
            else len(migrations.outstanding({row["name"]: row["checksum"] for row in rows}))
        )
    except Refusal:  # an applied migration reads differently: the database is of another version
        pending = math.nan
    metrics.MIGRATIONS_PENDING.set(pending)


async def ask(asked: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Return the database's answer, None where there is none within MEASURE_SECONDS. Raises nothing."""
    # A time-out around the call would not do: a cancelled statement waits for the server's word on that.
    question = asyncio.create_task(asked)
    _late.add(question)
    question.add_done_callback(_forget)
    done, _ = await asyncio.wait([question], timeout=MEASURE_SECONDS)
    if not done:
        question.cancel()
        return None
    try:
        return question.result()
    except (Refusal, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


def _forget(question: asyncio.Task[Any]) -> None:
    _late.discard(question)
    if not question.cancelled():
        question.exception()  # read, so that asyncio does not log it
