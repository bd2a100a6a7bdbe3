"""Partitions are made, archived and dropped while rows are written and read: no row is lost, no writer fails."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest

from core import audit
from core.partitions import archiving
from core.service import Service
from core.settings import Settings
from tests.core.partitions.aging import age, attempt, rows_of
from tests.core.partitions.test_archiving import archived
from tests.core.partitions.test_keeping import make_all
from tests.queries import QUERIES

pytestmark = pytest.mark.drill

WRITERS = 6
READERS = 2
# The partitions of the table at its beginning: each night's work, forty times over.
DAYS = 70


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"archive_url": (tmp_path / "archive").as_uri()})


async def test_no_row_is_lost_and_no_writer_fails(
    service: Service, owner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await age(owner, "webhook_attempts", DAYS)
    written: list[Any] = []
    slowest = 0.0
    stop = asyncio.Event()
    pool = service.database.connections.pool
    dice = random.Random(12)

    async def write() -> None:
        nonlocal slowest
        while not stop.is_set():
            started = time.perf_counter()
            written.append(await attempt(pool, dice.uniform(0, DAYS + 5)))
            await audit.record(service.database, audit.audited("load", "admin", {}))
            slowest = max(slowest, time.perf_counter() - started)

    async def read() -> None:
        while not stop.is_set():
            await service.database.fetch(QUERIES["callback_attempts"], "a", "b", 10)
            await owner_count()

    async def owner_count() -> None:
        async with pool.acquire() as connection:
            await connection.fetchval("SELECT count(*) FROM webhook_attempts")

    tasks = [asyncio.create_task(work()) for work in [write] * WRITERS + [read] * READERS]
    made = await make_all(service)
    done = 0
    while (progress := await archiving.step(service.database, service.settings, service.epoch)).any:
        done += progress.done
    stop.set()
    await asyncio.gather(*tasks)

    left, gone = await rows_of(owner, "webhook_attempts"), await archived(owner, "webhook_attempts")
    assert len(gone) == len(set(gone))
    assert len(left) + len(gone) == len(written)
    assert {line.split('"')[3] for line in left | set(gone)} == {str(delivery) for delivery in written}
    assert (made, done) >= (DAYS, DAYS - 31)
    with capsys.disabled():
        print(  # noqa: T201 - a drill tells what it did
            f"\n{made} partitions made and {done} archived and dropped beside {WRITERS} writers and {READERS} readers:"
            f" {len(written)} rows written, {len(gone)} of them in the archive, none lost; slowest write"
            f" {slowest * 1000:.0f} ms"
        )
