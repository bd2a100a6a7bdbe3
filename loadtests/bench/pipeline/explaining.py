"""The pages that each statement of the worker reads, by EXPLAIN (ANALYZE, BUFFERS) with the arguments that it is given.

The worker's own code runs on a database that explains every statement before it runs it. So no list of statements and
their arguments is kept here, and one that is new is explained, too.
"""

import asyncio
import contextlib
import json
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from structlog.testing import capture_logs

from core.database import Connection, Database, Query, Row, translated
from core.inbox.processing import BATCH
from core.outbox.fanout import fan_out
from loadtests.bench import outbox
from loadtests.bench.pipeline.worker_parts import worker_parts
from loadtests.bench.stand import Stand, StandError

if TYPE_CHECKING:
    from core.database import RawConnection

Result = TypeVar("Result")

PAUSE_SECONDS = 0.002
#: A turn is over when so many steps after each other have found nothing.
IDLE_STEPS = 5


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one call of a statement, as the median over its calls: 8 KB pages found or read, and time.

    `plan` has the nodes of the last call, indented as they stand below each other.
    """

    calls: int
    buffers: float
    milliseconds: float
    plan: list[str]


class Call(NamedTuple):
    """One call of a statement, explained."""

    plan: dict[str, Any]
    milliseconds: float

    @property
    def buffers(self) -> int:
        """The pages of the whole statement, in shared buffers or not: each node counts those below it."""
        return _buffers(self.plan)


Explained = dict[str, list[Call]]


class ExplainingConnection(Connection):
    """A connection that explains a statement, undoes that, and runs it."""

    __slots__ = ("_explained",)

    def __init__(self, raw: "RawConnection", explained: Explained) -> None:
        super().__init__(raw)
        self._explained = explained

    async def fetch(self, statement: Query, *args: Any) -> list[Row]:
        """Return all rows."""
        await self._explain(statement, args)
        return await super().fetch(statement, *args)

    async def fetchrow(self, statement: Query, *args: Any) -> Row | None:
        """Return the first row, or None."""
        await self._explain(statement, args)
        return await super().fetchrow(statement, *args)

    async def fetchval(self, statement: Query, *args: Any) -> Any:
        """Return the first column of the first row, or None."""
        await self._explain(statement, args)
        return await super().fetchval(statement, *args)

    async def execute(self, statement: Query, *args: Any) -> int:
        """Run the statement and return how many rows it touched."""
        await self._explain(statement, args)
        return await super().execute(statement, *args)

    async def _explain(self, statement: Query, args: tuple[Any, ...]) -> None:
        transaction = self.raw.transaction()
        await transaction.start()
        try:
            found = await self.raw.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}", *args
            )
        finally:
            await transaction.rollback()
        (explained,) = json.loads(found)
        self._explained[statement.name].append(Call(explained["Plan"], explained["Execution Time"]))


class ExplainingDatabase(Database):
    """A database whose connections explain."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self.explained: Explained = defaultdict(list)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction."""
        with translated():
            async with self._acquired() as raw, raw.transaction():
                yield ExplainingConnection(raw, self.explained)

    async def _once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        with translated():
            async with self._acquired() as raw:
                return await work(ExplainingConnection(raw, self.explained))


async def explain(stand: Stand, database: str) -> dict[str, Cost]:
    """Let the worker's code work off payments, a claim at a time; return the cost of each statement."""
    async with worker_parts(stand, database, ExplainingDatabase) as parts, stand.connect(database) as writer:
        explaining = parts.database
        with capture_logs():
            for turn in range(stand.plan.explained_turns):
                names = [f"explained_{turn}_{number}" for number in range(1, BATCH + 1)]
                await outbox.store_payments(writer, names)
                if not await parts.processor.step():
                    raise StandError("the worker found none of the events that were to be explained")
                while await fan_out(explaining):
                    pass
                idle = 0
                while idle < IDLE_STEPS:
                    idle = 0 if await parts.sender.step() else idle + 1
                    await asyncio.sleep(PAUSE_SECONDS)
            await parts.sender.drain(1)
    return {
        name: Cost(
            calls=len(found),
            buffers=statistics.median(call.buffers for call in found),
            milliseconds=round(statistics.median(call.milliseconds for call in found), 3),
            plan=list(_nodes(found[-1].plan)),
        )
        for name, found in explaining.explained.items()
    }


def _nodes(plan: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """Each node in a line: what it does with what, its rows, its loops, and its pages with those below it."""
    place = plan.get("Index Name") or plan.get("Relation Name") or plan.get("CTE Name") or ""
    words = f"{plan.get('Operation') or plan['Node Type']} {place}".strip()
    rows, loops = plan["Actual Rows"], plan["Actual Loops"]
    yield f"{'  ' * depth}{words}: rows {rows:g}, loops {loops:g}, pages {_buffers(plan)}"
    for below in plan.get("Plans", ()):
        yield from _nodes(below, depth + 1)


def _buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
