"""Claims of due work while a foreign transaction stays open, which keeps every dead row version from being cleaned."""

import asyncio
import time
from typing import Any

from structlog.testing import capture_logs

from core.database import Database, Row, Statement
from core.inbox.processing import Processor
from core.leases import Worker
from core.service import open_service
from core.settings import load_settings
from loadtests.bench import outbox
from loadtests.bench.client import ClientResult
from loadtests.bench.figures import latency_summary
from loadtests.bench.measures import BASE
from loadtests.bench.meter import Meter
from loadtests.bench.stand import Stand
from loadtests.bench.subject import Connection

CLAIMS = "claims"
CLAIM = "claim_inbox_events"
#: Events between two claims: what one claim takes at most.
EVENTS_A_CLAIM = 64
#: The first and the last of so many parts are compared.
PARTS = 5


class TimedDatabase(Database):
    """Notes how long each claim took, and when."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self.claims: list[tuple[float, float]] = []

    async def fetch(self, statement: Statement, *args: Any) -> list[Row]:
        """Times what is a claim."""
        started = time.perf_counter()
        rows = await super().fetch(statement, *args)
        if statement.name == CLAIM:
            self.claims.append((started, time.perf_counter() - started))
        return rows


async def claims(stand: Stand, meter: Meter) -> None:
    """Stores, claims and finishes events in turns, and reports the claims of each part of the time as a figure."""
    url = await stand.create_database(CLAIMS, BASE)
    settings = load_settings(
        env_file=None,
        env="test",
        database_url=url,
        redis_url=stand.redis_url(CLAIMS),
        state_dir=str(stand.state),
    )
    async with (
        stand.connect(CLAIMS) as foreign,
        stand.connect(CLAIMS) as writer,
        open_service(settings) as service,
    ):
        database, worker = TimedDatabase(service.database), Worker()
        processor = Processor(database, service.ledger, worker, wake=lambda _: None)
        transaction = foreign.transaction(isolation="repeatable_read")
        await transaction.start()
        await foreign.execute(outbox.FOREIGN)
        # What the worker's own process would write into its log is not for this terminal.
        with capture_logs():
            for part in range(1, PARTS + 1):
                work = _part(database, processor, writer, stand.plan.claims_seconds / PARTS, f"part{part}")
                await meter.measure(f"claims.{part}", work, connections=1, unit="claims/s")
        await transaction.rollback()


async def _part(
    database: TimedDatabase, processor: Processor, writer: Connection, seconds: float, prefix: str
) -> ClientResult:
    database.claims.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    number = 0
    while time.perf_counter() < started + seconds:
        number += 1
        await outbox.store(writer, [f"{prefix}_{number}_{item}" for item in range(EVENTS_A_CLAIM)])
        await processor.step()
        await asyncio.sleep(0)
    latencies = [took for _, took in database.claims]
    return ClientResult(
        requests=len(latencies),
        seconds=time.perf_counter() - started,
        latency_ms=latency_summary(latencies),
        errors={},
        client="asyncpg",
        cpu_seconds=time.process_time() - cpu_started,
    )
