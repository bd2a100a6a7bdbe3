"""Gauges that a scrape asks the database for: the progress of workers, since one that hangs cannot tell its own."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import msgspec

from core import metrics
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from core.database import Database

Answer = TypeVar("Answer")

_sql = queries(__name__)

# Prometheus gives a scrape ten seconds by default, and the other gauges must arrive, too.
MEASURE_SECONDS: Final = 2.0

# Questions that nobody waits for any more; without a reference they could be collected before they end.
_late: set[asyncio.Task[Any]] = set()


async def measure(database: Database) -> None:
    """Set the gauges that the database knows; to NaN when it does not answer within MEASURE_SECONDS. Raises nothing."""
    row = await ask(database.fetchrow(_sql.pulse))
    metrics.FEED_LAG_SECONDS.set(math.nan if row is None else row["feed_lag_seconds"])
    metrics.WORKER_HEARTBEAT_AGE.set(math.nan if row is None else row["heartbeat_age_seconds"])
    metrics.BACKUP_AGE.set(math.nan if row is None else row["backup_age_seconds"])
    metrics.DLQ_PENDING.set(math.nan if row is None else row["dead_letters"])
    if row is None:
        return  # the other questions would wait as long, and what was told of reports stays true
    for report in await ask(database.fetch(_sql.latest_reports)) or ():
        provider = report["provider"]
        metrics.PROVIDER_REPORT_LAST_RUN.labels(provider).set(report["compared_at"].timestamp())
        for class_, rows in msgspec.json.decode(report["counts"]).items():
            metrics.PROVIDER_REPORT_ROWS.labels(provider, class_).set(rows)


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
