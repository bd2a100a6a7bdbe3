"""The parts of a worker in this process, on a database that watches what they do."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Generic, NamedTuple, TypeVar

from core.database import Database
from core.inbox.processing import Processor
from core.inbox.rules import Admission
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.service import open_service
from core.settings import load_settings
from core.work.leases import Worker
from loadtests.bench.stand import Stand

Watching = TypeVar("Watching", bound=Database)


class Parts(NamedTuple, Generic[Watching]):
    """The parts, and the database that they ask."""

    database: Watching
    processor: Processor
    sender: Sender


@contextlib.asynccontextmanager
async def worker_parts(
    stand: Stand, database: str, watching: Callable[[Database], Watching]
) -> AsyncIterator[Parts[Watching]]:
    """Open a service on a database of the stand, and make a worker's parts on its connections."""
    settings = load_settings(
        env_file=None,
        env="test",
        database_url=stand.postgres.url(database),
        redis_url=stand.redis_url(database),
        state_dir=str(stand.state),
    )
    egress = Egress(Destinations.of(("127.0.0.0/8",), require_https=False))
    try:
        async with open_service(settings) as service:
            watched, worker = watching(service.database), Worker()
            await worker.beat(watched)
            processor = Processor(
                watched, service.ledger, worker, admission=Admission.of(settings), wake=lambda _: None
            )
            yield Parts(watched, processor, Sender(watched, egress, worker, Schedule.of(settings)))
    finally:
        await egress.close()
