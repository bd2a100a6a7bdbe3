"""The fan-out and the sender of one worker, whose hand-over tests look at."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.outbox.fanout import FanOut
from core.outbox.sender import Sender
from tests.core.outbox.office import Office


@asynccontextmanager
async def worker(office: Office, due: list[bool] | None = None) -> AsyncIterator[tuple[FanOut, Sender]]:
    """Yield the fan-out and the sender of one worker, whose heart beats once."""
    sender = office.sender()
    await sender._worker.beat(office.service.database)
    claims: list[bool] = [] if due is None else due
    try:
        yield FanOut(office.service.database, sender, on_due=lambda: claims.append(True)), sender
    finally:
        await office.close(sender)


async def sent(sender: Sender) -> None:
    while sender._sending:
        await asyncio.wait(sender._sending)


async def states(office: Office) -> list[tuple[str, int]]:
    rows = await office.sql("SELECT state, attempts FROM webhook_deliveries ORDER BY event_id, endpoint_id")
    return [tuple(row) for row in rows]
