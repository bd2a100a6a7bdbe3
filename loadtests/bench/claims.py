"""Claims of due work while a foreign transaction stays open, which keeps every dead row version from being cleaned."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from structlog.testing import capture_logs

from core.database import Database, Query, Row
from core.outbox.fanout import fan_out
from loadtests.bench import outbox
from loadtests.bench.clients.client import ClientResult
from loadtests.bench.deliveries import OWNER, hook
from loadtests.bench.figures import latency_summary
from loadtests.bench.measures import BASE
from loadtests.bench.meter import Meter
from loadtests.bench.pipeline.worker_parts import subscribe_directly, worker_parts
from loadtests.bench.stand import Stand

CLAIMS = "claims"
INBOX_CLAIM, DELIVERY_CLAIM = "claim_inbox_events", "claim_deliveries"
#: These statements find the endpoints that a claim of deliveries asks for; their time is a part of the next claim's.
LOOKS = ("endpoints_due", "endpoints_due_lately")
#: Events between two claims of the inbox, all of which the next claim takes.
EVENTS_A_CLAIM = 64
#: The outbox has as many deliveries between two claims, of events to so many endpoints.
ENDPOINTS = 4
#: The first and the last of so many parts are compared.
PARTS = 5
#: Every endpoint has its hands full for a moment.
PAUSE_SECONDS = 0.002


class TimedDatabase(Database):
    """A database that notes the seconds of each claim."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self.claims: dict[str, list[float]] = {INBOX_CLAIM: [], DELIVERY_CLAIM: []}
        self._looked = 0.0

    async def fetch(self, statement: Query, *args: Any) -> list[Row]:
        """Return all rows; the time of a claim is noted."""
        started = time.perf_counter()
        rows = await super().fetch(statement, *args)
        seconds = time.perf_counter() - started
        if statement.name in LOOKS:
            self._looked = seconds
        elif rows and statement.name in self.claims:
            before, self._looked = (
                (self._looked, 0.0) if statement.name == DELIVERY_CLAIM else (0.0, self._looked)
            )
            self.claims[statement.name].append(before + seconds)
        return rows


async def claims(stand: Stand, meter: Meter) -> None:
    """Stores, claims and finishes events, then deliveries, in turns; each part of the time has a figure of both."""
    await stand.create_database(CLAIMS, BASE)
    seconds = stand.plan.claims_seconds / PARTS / 2
    async with (
        stand.receiver() as receiver,
        stand.connect(CLAIMS) as foreign,
        stand.connect(CLAIMS) as writer,
        worker_parts(stand, CLAIMS, TimedDatabase) as (database, processor, sender),
    ):
        hooks = [hook(receiver, str(number)) for number in range(ENDPOINTS)]
        await subscribe_directly(stand, CLAIMS, hooks, outbox.BACKLOG_TYPE)
        turns = 0

        async def process() -> None:
            nonlocal turns
            turns += 1
            await outbox.store(writer, [f"turn{turns}_{item}" for item in range(EVENTS_A_CLAIM)])
            await processor.step()

        async def deliver() -> None:
            await outbox.emit(writer, OWNER, EVENTS_A_CLAIM // ENDPOINTS)
            await fan_out(database)
            left = EVENTS_A_CLAIM
            while left > 0:
                left -= (taken := await sender.step())
                if not taken:
                    await asyncio.sleep(PAUSE_SECONDS)

        transaction = foreign.transaction(isolation="repeatable_read")
        await transaction.start()
        await foreign.execute(outbox.FOREIGN)
        # The log lines of the worker's part are not for this terminal.
        with capture_logs() as said:
            for part in range(1, PARTS + 1):
                for name, turn, claim in (
                    ("inbox", process, INBOX_CLAIM),
                    ("deliveries", deliver, DELIVERY_CLAIM),
                ):
                    work = _part(database.claims[claim], turn, seconds, said)
                    await meter.measure(f"claims.{name}.{part}", work, connections=1, unit="claims/s")
            await sender.drain(seconds)
        await transaction.rollback()


async def _part(
    found: list[float], turn: Callable[[], Awaitable[None]], seconds: float, said: list[Any]
) -> ClientResult:
    found.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    while time.perf_counter() < started + seconds:
        await turn()
        said.clear()
    return ClientResult(
        requests=len(found),
        seconds=time.perf_counter() - started,
        latency_ms=latency_summary(found),
        errors={},
        client="asyncpg",
        cpu_seconds=time.process_time() - cpu_started,
    )
