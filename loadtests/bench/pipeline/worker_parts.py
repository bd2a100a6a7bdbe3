"""The parts of a worker in this process, on a database that watches what they do."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from core.database import Database
from core.inbox.processing import Processor
from core.inbox.rules import Admission
from core.ledger.ledger import Ledger
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.endpoints import NewEndpoint, create
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.service import open_service
from core.settings import Settings, load_settings
from core.vault import Vault
from core.work.leases import Worker
from loadtests.bench.stand import Stand
from loadtests.bench.tallystick import PRINCIPAL

#: The receivers of the benchmark are here.
DESTINATIONS = Destinations.of(("127.0.0.0/8",), require_https=False)

Watching = TypeVar("Watching", bound=Database)


class Parts(NamedTuple, Generic[Watching]):
    """The parts, and the database that they ask."""

    database: Watching
    processor: Processor
    sender: Sender


async def subscribe_directly(stand: Stand, database: str, urls: Sequence[str], event_type: str) -> None:
    """Create endpoints of the benchmark's own principal that want one type of events, without an API."""
    settings = _settings(stand, database)
    async with open_service(settings) as service:
        for url in urls:
            wanted = NewEndpoint(url, (event_type,))
            await create(
                service.database, DESTINATIONS, Vault.of(settings), principal_id=PRINCIPAL, wanted=wanted
            )


@contextlib.asynccontextmanager
async def worker_parts(
    stand: Stand, database: str, watching: Callable[[Database], Watching]
) -> AsyncIterator[Parts[Watching]]:
    """Open a service on a database of the stand, and make a worker's parts on its connections."""
    settings = _settings(stand, database)
    egress = Egress(DESTINATIONS)
    try:
        async with open_service(settings) as service:
            watched, worker = watching(service.database), Worker()
            await worker.beat(watched)
            processor = Processor(
                watched,
                Ledger(watched, service.ledger.poster),
                worker,
                admission=Admission.of(settings),
                wake=lambda _: None,
            )
            yield Parts(watched, processor, Sender(watched, egress, worker, Schedule.of(settings)))
    finally:
        await egress.close()


def _settings(stand: Stand, database: str) -> Settings:
    return load_settings(
        env_file=None,
        env="test",
        database_url=stand.postgres.url(database),
        redis_url=stand.redis_url(database),
        state_dir=str(stand.state),
    )
