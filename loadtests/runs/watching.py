"""The use of processors during a load, from /proc, and what PostgreSQL's sessions waited for, from its own views."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import asyncpg

from loadtests.bench.machine import CpuTimes, cpu_times, process_table, tree
from loadtests.runs.limits import RoleUse, Usage, Wait
from ops.process import command_line_of

if TYPE_CHECKING:
    from loadtests.bench.subject import Connection

#: The look at /proc takes some milliseconds, so this costs a hundredth of a core.
PAUSE_SECONDS = 0.5
GENERATOR, API, WORKER, POSTGRES, REDIS = "load generator", "API", "worker", "PostgreSQL", "Redis"
SIMULATOR, SUPERVISOR = "simulator", "supervisor"
#: Words of a command line, and the part that they tell. PostgreSQL's processes are all below the first of them.
WORDS = {
    "ops.api_process": API,
    "ops.cli worker": WORKER,
    "ops.cli simulator": SIMULATOR,
    "ops.cli up": SUPERVISOR,
    "postgres": POSTGRES,
    "valkey": REDIS,
    "redis-server": REDIS,
}
#: Sessions that do something, and what for they wait; none: they compute.
WAITS = """
    SELECT coalesce(wait_event_type, 'CPU') AS kind, coalesce(wait_event, 'running') AS event, count(*) AS sessions
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
        AND backend_type = 'client backend'
    GROUP BY 1, 2
"""
#: Events that the worker has not come to yet; with so many, it does not matter how many more.
BEHIND = """
    SELECT count(*)
    FROM (SELECT FROM inbox_events WHERE state = 'pending' AND due_at <= now() ORDER BY due_at LIMIT 10000) AS due
"""


Waiting: TypeAlias = "Counter[tuple[str, str]]"


class Sample(NamedTuple):
    """One look: the processor seconds of each process by part, of the machine; what sessions and events wait for."""

    at: float
    machine: CpuTimes | None
    parts: Mapping[str, Mapping[int, float]]
    waits: Waiting | None
    behind: int


class Watcher:
    """Looks twice a second at the processes below `pid` (None: elsewhere) and at the database, if it is known."""

    def __init__(self, pid: int | None, database_url: str) -> None:
        self._pid = pid
        self._database_url = database_url
        self._generator: int | None = None
        self._known: dict[int, str] = {}
        self._samples: list[Sample] = []

    @contextlib.asynccontextmanager
    async def watching(self, generator: int) -> AsyncIterator[None]:
        """Watch for the length of the block; `generator` is Locust's process."""
        self._generator, self._samples = generator, []
        async with contextlib.AsyncExitStack() as stack:
            connection = await self._connection(stack)
            task = asyncio.create_task(self._look_on(connection))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _connection(self, stack: contextlib.AsyncExitStack) -> Connection | None:
        if not self._database_url:
            return None
        connection: Connection = await asyncpg.connect(
            self._database_url, server_settings={"application_name": "tallystick load"}
        )
        stack.push_async_callback(connection.close, timeout=PAUSE_SECONDS)
        return connection

    async def _look_on(self, connection: Connection | None) -> None:
        while True:
            waits, behind = await _waits(connection)
            self._samples.append(Sample(time.time(), cpu_times(), self._parts(), waits, behind))
            await asyncio.sleep(PAUSE_SECONDS)

    def _parts(self) -> dict[str, dict[int, float]]:
        """Return the processor seconds so far of each process, by its part."""
        table = process_table()
        parts: dict[str, dict[int, float]] = {}
        if self._generator is not None:
            parts[GENERATOR] = {each.pid: each.cpu for each in tree(self._generator, table)}
        below = [] if self._pid is None else tree(self._pid, table)
        for process in below:
            part = self._part(process.pid, process.parent)
            parts.setdefault(part, {})[process.pid] = process.cpu
        return parts

    def _part(self, pid: int, parent: int) -> str:
        """Return the part of a process: that of its parent, unless the parent is the one that starts them all."""
        if pid not in self._known:
            inherited = self._known.get(parent, SUPERVISOR)
            if inherited == SUPERVISOR:
                line = command_line_of(pid)
                inherited = next((part for words, part in WORDS.items() if words in line), SUPERVISOR)
            self._known[pid] = inherited
        return self._known[pid]

    def usage(self, started_at: float, ended_at: float) -> Usage:
        """Return who used what between two moments, as far as there were looks between them."""
        within = [each for each in self._samples if started_at <= each.at <= ended_at]
        if len(within) < 2:  # too short a run
            within = self._samples[-2:]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if len(within) < 2:
            return Usage(cores, self._pid is not None, {}, None, 0.0)
        first, last = within[0], within[-1]
        seconds = last.at - first.at
        roles = {
            part: RoleUse.between(first.parts.get(part, {}), processes, seconds)
            for part, processes in last.parts.items()
        }
        other, stolen = _rest(
            first.machine, last.machine, seconds, sum(each.cores for each in roles.values())
        )
        here = self._pid is not None
        return Usage(cores, here, roles, other, stolen, _mean_waits(within), last.behind - first.behind)


async def _waits(connection: Connection | None) -> tuple[Waiting | None, int]:
    if connection is None:
        return None, 0
    try:
        rows = await connection.fetch(WAITS, timeout=5)
        behind: int = await connection.fetchval(BEHIND, timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return None, 0  # an overloaded server may refuse; the next look tries again
    return Counter({(row["kind"], row["event"]): row["sessions"] for row in rows}), behind


def _mean_waits(samples: list[Sample]) -> tuple[Wait, ...]:
    """Return the sessions on average for each thing waited for, the most first."""
    looked = [each.waits for each in samples if each.waits is not None]
    total: Waiting = sum(looked, Counter())
    return tuple(
        Wait(kind, event, round(count / len(looked), 2)) for (kind, event), count in total.most_common()
    )


def _rest(
    before: CpuTimes | None, after: CpuTimes | None, seconds: float, ours: float
) -> tuple[float | None, float]:
    """Return the cores that other programs used, if known, and the share of all time that the host took."""
    if before is None or after is None:
        return None, 0.0
    elapsed = after.total - before.total
    stolen = (after.steal - before.steal) / elapsed if elapsed else 0.0
    return round(max((after.busy - before.busy) / seconds - ours, 0.0), 2), round(stolen, 3)
