"""The records of attempts: results are written in sets, while the next requests are under way.

One set is under way at a time, and results that come meanwhile make the next one. Several sets at once were measured
to cost more in PostgreSQL than they save: nobody waits for a record, since a receiver's slot is free before it. Results
that end a turn or a batch lock more than their own rows, so they go in sets of their own.

A set that could not be written is written again while its leases last: a receiver that has answered would else get the
same delivery once more.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.database import queries
from core.errors import Unavailable
from core.lane import Lane
from core.masking import mask_text
from core.outbox.batching import carriers_of, carry
from core.outbox.callbacks import Courier
from core.outbox.egress import EXCERPT_BYTES
from core.outbox.ordering import Turn, lock, release, release_locked, turns_of
from core.work.leases import DEAD_AFTER_SECONDS
from core.work.retries import half_jitter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from core.database import Database, Row
    from core.outbox.egress import Reply
    from core.outbox.schedule import Schedule

_sql = queries(__name__)

# Results written in one statement.
RECORD_BATCH: Final = 200
# The wait for more results where few come: nobody waits for a record, and a set of one costs nine times its share in a
# set of 200 (ADR 19).
GATHER_SECONDS: Final = 0.05
TAKE_OVER_BATCH: Final = 1000
# The waits before a result is written again, which double from the first to the last.
FIRST_WAIT_SECONDS: Final = 0.05
LAST_WAIT_SECONDS: Final = 2.0


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


def result_of(
    row: Row, token: UUID, reply: Reply, sent_at: datetime, schedule: Schedule, *, ends_gone: bool = True
) -> Result:
    """Return the result that a reply means for the delivery `row`; `ends_gone` lets an answer 410 be the last one."""
    excerpt = mask_text(reply.excerpt)[:EXCERPT_BYTES]
    final = reply.succeeded or (reply.gone and ends_gone)
    wait = None if final else schedule.wait_seconds(row["attempts"], reply.retry_after)
    error = None
    if not reply.succeeded:
        error = (reply.error or f"answered {reply.status}: {excerpt}")[:500]
    return Result(
        row["id"],
        token,
        "delivered" if reply.succeeded else "failed" if wait is None else "pending",
        error,
        wait or 0.0,
        sent_at,
        round(reply.seconds * 1000),
        reply.status,
        excerpt,
        reply.error,
    )


class Written(NamedTuple):
    """A result to be written down, the turn that it ends, and whether the delivery carries others that share it.

    The turn of a callback that would be tried again ends if a later one has superseded it: `superseded_ends`.
    """

    result: Result
    turn: Turn | None
    carries: bool
    superseded_ends: bool = False


class Records:
    """The results of one sender on their way into the database. `on_release` is called when a turn was released."""

    def __init__(self, database: Database, *, most_waiting: int, on_release: Callable[[], None]) -> None:
        self._database = database
        self._on_release = on_release
        self._plain, self._tied = (
            Lane[Written, bool](
                self._write, max_batch=RECORD_BATCH, max_waiting=most_waiting, patience=patience
            )
            for patience in (GATHER_SECONDS, None)
        )

    async def add(self, written: Written, *, until: float) -> bool:
        """Write a result down, and return whether its lease still held.

        It is tried again while the server is away or rows are locked, until `until` on the monotonic clock. Raises what
        the last try has raised.
        """
        lane = self._plain if written.turn is None and not written.carries else self._tied
        tried = 0
        while True:
            try:
                return await lane.submit(written)
            except Unavailable:
                if time.monotonic() > until:
                    raise
            tried += 1
            await asyncio.sleep(
                half_jitter(tried, base_seconds=FIRST_WAIT_SECONDS, cap_seconds=LAST_WAIT_SECONDS)
            )

    async def close(self) -> None:
        """Wait until every result is written."""
        await self._plain.close()
        await self._tied.close()

    async def _write(self, written: Sequence[Written]) -> list[bool]:
        results = [one.result for one in written]
        columns: list[list[Any]] = [list(column) for column in zip(*results, strict=True)]
        turns = {one.turn for one in written if one.turn is not None}
        carriers = {one.result.id for one in written if one.carries}
        again = [one.result.id for one in written if one.superseded_ends]
        if turns or carriers:
            async with self._database.transaction() as connection:
                await lock(connection, turns)
                rows = await connection.fetch(_sql.record_deliveries, *columns)
                await carry(connection, carriers)
                if again:
                    await connection.execute(_sql.end_superseded, again)
                released = await release_locked(connection, turns)
            if released:
                self._on_release()
        else:
            rows = await self._database.fetch(_sql.record_deliveries, *columns)
        held = {row["id"] for row in rows}
        return [result.id in held for result in results]


async def take_over_deliveries(database: Database, schedule: Schedule, courier: Courier | None = None) -> int:
    """Free the deliveries of workers that are gone or too slow; return how many that was."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            _sql.take_over_deliveries,
            DEAD_AFTER_SECONDS,
            schedule.max_attempts,
            TAKE_OVER_BATCH,
            *(courier or Courier()).attempts(),
        )
        await carry(connection, carriers_of(rows))
    await release(database, turns_of(row for row in rows if row["state"] == "failed"))
    return len(rows)
