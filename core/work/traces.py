"""Traces of events: the trace in which an event was stored, kept until a worker comes to the event, or sends it.

The rows stand beside the events and not in them, so that nothing of the hot path changes for a service that does not
trace. They are written before the events, by a connection of their own, and are worth little: the table is not in
the WAL, and a store that fails or is slow forgets. No event waits or fails for its trace.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from core import ids, tracing
from core.arrays import uuids
from core.database import Database, open_database, queries
from core.lane import Lane
from core.lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from uuid import UUID

    from core.settings import Settings

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# A row takes a tenth of that. A store that needs longer is busy or away, and an event shall not wait for it.
WITHIN_SECONDS: Final = 0.25
# A delivery is tried for three days by the usual schedule; a person may look at it some days later.
KEPT_DAYS: Final = 7
PRUNE_BATCH: Final = 5_000
MAX_BATCH: Final = 1_000
MAX_WAITING: Final = 10_000


class Traces:
    """The store of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeping: Lane[tuple[UUID, str], None] = Lane(
            self._keep, max_batch=MAX_BATCH, max_waiting=MAX_WAITING
        )
        self._finding: Lookup[str] = Lookup(database, _sql.traces_of, lambda row: str(row["traceparent"]))

    async def keep(self, traces: Mapping[UUID, str]) -> None:
        """Keep the traceparent of each event, unless that fails or takes too long."""
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                await asyncio.gather(*(self._keeping.enqueue(trace) for trace in traces.items()))
        except Exception as error:  # noqa: BLE001 - a trace is worth no payment
            log.warning("traces.forgotten", events=len(traces), error=type(error).__name__)

    async def find(self, event_id: UUID) -> str | None:
        """Return the traceparent of an event; None where none is known, or cannot be found in time."""
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                return await self._finding.find(event_id)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("traces.not_found", error=type(error).__name__)
            return None

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._keeping.close()
        await self._finding.close()

    async def _keep(self, traces: Sequence[tuple[UUID, str]]) -> list[None]:
        await self._database.execute(
            _sql.keep_traces, uuids([event_id for event_id, _ in traces]), [text for _, text in traces]
        )
        return [None] * len(traces)


@asynccontextmanager
async def traces_kept(settings: Settings) -> AsyncIterator[None]:
    """Give the tracing of this process its store for the block; without tracing nothing is opened."""
    if tracing.active is None:
        yield
        return
    database = await open_database(settings, size=2)
    store = tracing.active.contexts = Traces(database)
    try:
        yield
    finally:
        if tracing.active is not None:
            tracing.active.contexts = None
        await store.close()
        await database.close()


async def prune_traces(database: Database) -> int:
    """Remove some of the traces that are older than KEPT_DAYS; return how many."""
    before = ids.first_uuid_at(datetime.now(UTC) - timedelta(days=KEPT_DAYS))
    return await database.execute(_sql.prune_traces, before, PRUNE_BATCH)
