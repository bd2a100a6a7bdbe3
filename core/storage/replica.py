"""A streaming standby for lists and reports, read only while its data are known to be young enough.

The age of the standby's data is measured without any clock of the servers: this process asks the primary how far its
log is, remembers when it asked, and asks the standby how far it has replayed. Data that the standby shows are at least
as new as the newest of those positions that it has passed. While they may be older than REPLICA_MAX_LAG_MS, or nobody
knows, the primary is read. No decision about money is ever made from the standby.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

import asyncpg
import structlog

from core import metrics, tasks
from core.database import Database, open_database, queries
from core.errors import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from core.database import Connection, Result
    from core.settings import Settings

Kind = Literal["report", "list"]

SQL = queries(__name__)
_log = structlog.get_logger(__name__)

LAG = metrics.level(
    "replica_lag_seconds",
    "How old the data of the standby may be; infinite while nobody knows, 0 without a standby",
    share="livemax",
)
BOUND = metrics.level(
    "replica_max_lag_seconds",
    "How old the data of the standby may be to be read (REPLICA_MAX_LAG_MS), 0 without a standby",
    share="livemax",
)
READS = metrics.Count(
    "replica_reads_total",
    "Lists and reports by what they were read from, and why from the primary: late, away or failed",
    ("source", "reason"),
    [("replica", ""), *metrics.each(["primary"], ["late", "away", "failed"])],
)

# The age is looked at so often that a look takes a fifth of the bound at most; a second's look costs nothing.
LOOKS_PER_BOUND: Final = 5
LONGEST_LOOK_SECONDS: Final = 1.0
# Positions of the primary that the standby has not passed yet. At one a look, more than these are minutes of lag.
MOST_POSITIONS: Final = 4_000
# A look that takes longer than this counts as no answer.
LOOK_TIMEOUT_SECONDS: Final = 2.0


class Replica:
    """The standby of one process: how old its data are, and whether it is read at the moment."""

    def __init__(self, primary: Database, settings: Settings, epoch: str) -> None:
        self._primary = primary
        self._settings = settings.model_copy(
            update={"database_url": settings.database_replica_url, "database_pooler": ""}
        )
        self._epoch = epoch
        self._most = settings.replica_max_lag_ms / 1000
        BOUND.set(self._most)
        self._lists = settings.replica_reads == "lists"
        self._positions: deque[tuple[float, int]] = deque(maxlen=MOST_POSITIONS)
        self._as_of = float("-inf")
        self._in_use = False
        self.database: Database | None = None

    @property
    def age(self) -> float:
        """How old the standby's data may be at this moment, in seconds; infinite where nobody knows."""
        return monotonic() - self._as_of

    def reader(self, kind: Kind) -> Database:
        """Return what a report or a list is read from: the standby while it is young enough, else the primary."""
        if kind == "list" and not self._lists:
            return self._primary
        if self.database is None or self.age > self._most:
            READS.add("primary", "late" if self.database is not None else "away")
            return self._primary
        READS.add("replica", "")
        return Reader(self, self.database, self._primary)

    def distrust(self) -> None:
        """Read the primary until the next look has found the standby again: a connection to nowhere takes seconds."""
        self._as_of = float("-inf")

    async def watch(self) -> None:
        """Look at the standby again and again; this ends only when it is cancelled."""
        pause = min(self._most / LOOKS_PER_BOUND, LONGEST_LOOK_SECONDS)
        while True:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                    await self._look()
            except (Refusal, TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self._tell(type(error).__name__)
            except Exception:  # noqa: BLE001 - a mistake of ours; nobody awaits this task, and the primary serves all
                _log.exception("replica.look_failed")
            else:
                self._tell("late")
            LAG.set(self.age)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End the connections to the standby."""
        if self.database is not None:
            await self.database.close()

    async def _look(self) -> None:
        asked_at = monotonic()
        self._positions.append((asked_at, await self._primary.fetchval(SQL.primary_position)))
        if self.database is None:
            self.database = await open_database(self._settings)
        row = await self.database.fetchrow(SQL.replica_position)
        if row is None or row["epoch"] != self._epoch:
            # A standby that was promoted, or one of another database, has a history of its own from now on.
            self.distrust()
            return
        while self._positions and self._positions[0][1] <= row["replayed"]:
            self._as_of, _ = self._positions.popleft()

    def _tell(self, reason: str) -> None:
        fit = self.age <= self._most
        if fit != self._in_use:
            self._in_use = fit
            if fit:
                _log.info("replica.in_use", lag_seconds=round(self.age, 3))
            else:
                _log.warning("replica.not_in_use", reason=reason, lag_seconds=round(min(self.age, 1e9), 3))


class Reader(Database):
    """The standby for one request, with the primary behind it: after a failure the rest is read from the primary.

    The primary is never older than the standby, so that pages which follow miss nothing.
    """

    def __init__(self, replica: Replica, database: Database, primary: Database) -> None:
        super().__init__(database.connections)
        self._replica = replica
        self._primary = primary
        self._failed = False

    async def _once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        if not self._failed:
            try:
                return await super()._once(work)
            except Unavailable as error:
                # The standby went away, or cancelled the statement because it held up the replay.
                self._failed = True
                if error.code == "database_unavailable":
                    self._replica.distrust()
                READS.add("primary", "failed")
        return await self._primary._once(work)  # noqa: SLF001 - a Database, too

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction of the primary, since a transaction may write."""
        async with self._primary.transaction() as connection:
            yield connection


@asynccontextmanager
async def open_replica(primary: Database, settings: Settings, epoch: str) -> AsyncIterator[Replica | None]:
    """Open the standby of DATABASE_REPLICA_URL, and look at it until the end; None where there is no such setting.

    A standby that is away is looked for again and again. Nothing waits for it.
    """
    if not settings.database_replica_url:
        yield None
        return
    replica = Replica(primary, settings, epoch)
    watching = asyncio.create_task(replica.watch(), name="replica")
    try:
        yield replica
    finally:
        await tasks.end(watching)
        with contextlib.suppress(Refusal):
            await replica.close()
