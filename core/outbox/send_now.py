"""Rounds of the work of a worker, for development without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.outbox.egress import TOTAL_TIMEOUT_SECONDS, Egress
from core.outbox.fanout import fan_out
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.work.leases import Worker

if TYPE_CHECKING:
    from core.database import Database
    from core.outbox.destinations import Destinations
    from core.settings import Settings


async def send_due(
    database: Database, settings: Settings, destinations: Destinations, *, most_rounds: int
) -> int:
    """Fan out and send in up to `most_rounds` rounds; return how many of them had anything to do.

    The call holds leases as a worker does, so it may run beside one.
    """
    worker, egress, rounds = Worker(), Egress(destinations), 0
    try:
        while rounds < most_rounds:
            await worker.beat(database)
            sender = Sender(database, egress, worker, Schedule.of(settings))
            events = await fan_out(database)
            started = await sender.step()
            await sender.drain(2 * TOTAL_TIMEOUT_SECONDS)
            if not events and not started:
                break
            rounds += 1
    finally:
        await egress.close()
        await worker.retire(database)
    return rounds
