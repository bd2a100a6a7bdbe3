"""Gauges that a scrape asks the database for: the progress of workers, since one that hangs cannot tell its own."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import asyncpg

from core import metrics
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from core.database import Database, Row

_sql = queries(__name__)

# Prometheus gives a scrape ten seconds by default, and the other gauges must arrive, too.
MEASURE_SECONDS: Final = 2.0

# Questions that nobody waits for any more; without a reference they could be collected before they end.
_late: set[asyncio.Task[Row | None]] = set()


async def measure(database: Database) -> None:
    """Set the gauges that the database knows; to NaN when it does not answer within MEASURE_SECONDS. Raises nothing."""
    row = await _ask(database)
    metrics.FEED_LAG_SECONDS.set(math.nan if row is None else row["feed_lag_seconds"])
    metrics.WORKER_HEARTBEAT_AGE.set(math.nan if row is None else row["heartbeat_age_seconds"])
    metrics.DLQ_PENDING.set(math.nan if row is None else row["dead_letters"])


async def _ask(database: Database) -> Row | None:
    # A time-out around the call would not do: a cancelled statement waits for the server's word on that.
    question = asyncio.create_task(database.fetchrow(_sql.pulse))
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


def _forget(question: asyncio.Task[Row | None]) -> None:
    _late.discard(question)
    if not question.cancelled():
        question.exception()  # read, so that asyncio does not log it
