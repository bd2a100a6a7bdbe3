"""Rounds of the work of a worker, for development without one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from core import tasks
from core.database import queries
from core.errors import Unavailable
from core.outbox.callbacks import Courier
from core.outbox.egress import TOTAL_TIMEOUT_SECONDS, Egress
from core.outbox.fanout import fan_out
from core.outbox.recording import take_over_deliveries
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.vault import Vault
from core.work.leases import HEARTBEAT_SECONDS, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from core.database import Database
    from core.outbox.destinations import Destinations
    from core.settings import Settings

_sql = queries(__name__)

# A delivery in the hand of a worker is sent and written down within this time, or its worker has died.
MOST_WAIT_SECONDS: Final = 4 * TOTAL_TIMEOUT_SECONDS
WAIT_STEP_SECONDS: Final = 0.02
# Rounds of one dispatch, each of up to as many requests as a sender has slots; the next dispatch goes on.
MOST_ROUNDS: Final = 1_000


async def send_due(
    database: Database, settings: Settings, destinations: Destinations, *, most_rounds: int
) -> int:
    """Fan out and send in up to `most_rounds` rounds; return how many of them had anything to do.

    The call holds leases as a worker does, so it may run beside one.
    """
    rounds = 0
    async with _rounds(database, settings, destinations) as send:
        while rounds < most_rounds and await send():
            rounds += 1
    return rounds


async def send_all_due(database: Database, settings: Settings, destinations: Destinations) -> None:
    """Send what is due now, and wait for what a worker beside us has in hand, for MOST_WAIT_SECONDS at most.

    Further attempts, which become due meanwhile, are left to others.
    """
    until = time.monotonic() + MOST_WAIT_SECONDS
    now = await database.fetchval(_sql.now)
    async with _rounds(database, settings, destinations) as send:
        while time.monotonic() < until:
            sent = await send()
            if not await database.fetchval(_sql.is_any_due, now):
                break
            if not sent:
                await asyncio.sleep(WAIT_STEP_SECONDS)
                await take_over_deliveries(database, Schedule.of(settings), Courier.of(settings))


async def dispatch_callbacks(
    database: Database, settings: Settings, destinations: Destinations
) -> Counter[str]:
    """Send what is due now, callbacks among it; return the states that attempts gave to callbacks, counted.

    An attempt that fails leaves its callback `pending` or `failed`, one that succeeds `delivered`.
    """
    results: Counter[str] = Counter()
    async with _rounds(database, settings, destinations, results) as send:
        for _ in range(MOST_ROUNDS):
            if not await send():
                break
    return results


@asynccontextmanager
async def _rounds(
    database: Database,
    settings: Settings,
    destinations: Destinations,
    results: Counter[str] | None = None,
) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Yield a function that does one round and says whether there was anything to do; `results` are of callbacks."""
    worker, egress, courier = Worker(), Egress(destinations), Courier.of(settings)

    async def beat() -> None:
        # A round may take longer than the time after which a worker counts as dead.
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            with contextlib.suppress(Unavailable):
                await worker.beat(database)

    async def send() -> bool:
        await worker.beat(database)
        sender = Sender(
            database, egress, worker, Schedule.of(settings), vault=Vault.of(settings), courier=courier
        )
        events = await fan_out(database)
        started = await sender.step()
        await sender.drain(2 * TOTAL_TIMEOUT_SECONDS + courier.longer_seconds)
        if results is not None:
            results.update(sender.callbacks)
        return bool(events or started)

    heart = asyncio.create_task(beat())
    try:
        yield send
    finally:
        await tasks.end(heart)
        await egress.close()
        await worker.retire(database)
