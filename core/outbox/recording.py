"""The records of attempts: results are written in sets, while the next requests are under way.

One set is under way at a time, and results that come meanwhile make the next one. Several sets at once were measured
to cost more in PostgreSQL than they save: nobody waits for a record, since a receiver's slot is free before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.database import queries
from core.lane import Lane
from core.outbox.batching import carry
from core.outbox.ordering import Turn, lock, release_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from core.database import Database

_sql = queries(__name__)

# Results written in one statement.
RECORD_BATCH: Final = 200


class Result(NamedTuple):
    """The result of one claimed delivery, to be written down. Without `sent_at` nothing was sent.

    `status`, `excerpt` and `error` are the attempt's; `last_error` is the delivery's, which a list shows.
    """

    id: UUID
    token: UUID
    state: str
    last_error: str | None = None
    retry_seconds: float = 0.0
    sent_at: datetime | None = None
    latency_ms: int = 0
    status: int | None = None
    excerpt: str = ""
    error: str | None = None


class Written(NamedTuple):
    """A result to be written down, the turn that it ends, and whether the delivery carries others that share it."""

    result: Result
    turn: Turn | None
    carries: bool


class Records:
    """The results of one sender on their way into the database. `on_release` is called when a turn was released."""

    def __init__(self, database: Database, *, most_waiting: int, on_release: Callable[[], None]) -> None:
        self._database = database
        self._on_release = on_release
        self._lane: Lane[Written, bool] = Lane(self._write, max_batch=RECORD_BATCH, max_waiting=most_waiting)

    async def add(self, written: Written) -> bool:
        """Write a result down, and return whether its lease still held."""
        return await self._lane.submit(written)

    async def close(self) -> None:
        """Wait until every result is written."""
        await self._lane.close()

    async def _write(self, written: Sequence[Written]) -> list[bool]:
        results = [one.result for one in written]
        columns: list[list[Any]] = [list(column) for column in zip(*results, strict=True)]
        turns = {one.turn for one in written if one.turn is not None}
        carriers = {one.result.id for one in written if one.carries}
        if turns or carriers:
            async with self._database.transaction() as connection:
                await lock(connection, turns)
                rows = await connection.fetch(_sql.record_deliveries, *columns)
                await carry(connection, carriers)
                released = await release_locked(connection, turns)
            if released:
                self._on_release()
        else:
            rows = await self._database.fetch(_sql.record_deliveries, *columns)
        held = {row["id"] for row in rows}
        return [result.id in held for result in results]
