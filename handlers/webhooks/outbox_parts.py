"""The parts that the routes of outgoing webhooks share in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import msgspec

from core.errors import Refusal
from core.outbox.challenge import prove
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.events import EVENT_TYPE_PATTERN, MAX_EVENT_TYPE
from core.service import Service
from core.vault import Vault
from core.work import wakeup
from core.work.wakeup import Waker

EventType = Annotated[str, msgspec.Meta(pattern=f"^{EVENT_TYPE_PATTERN}$", max_length=MAX_EVENT_TYPE)]
# A pattern is a type, or a type's beginning: `requests.*` is every type that begins with `requests.`, `*` every type.
EventPattern = Annotated[
    str, msgspec.Meta(pattern=rf"^(?:\*|{EVENT_TYPE_PATTERN}(?:\.\*)?)$", max_length=MAX_EVENT_TYPE)
]
# Challenges that a process has under way at once. Each waits for a stranger's server for up to five seconds.
CHALLENGES = 8


@dataclass(frozen=True, slots=True)
class Outbound:
    """The parts of one process: allowed addresses, the workers' waker, the client that challenges URLs, the keys."""

    destinations: Destinations
    waker: Waker
    egress: Egress
    vault: Vault
    challenges: asyncio.Semaphore

    def wake(self) -> None:
        """Tell the workers that a delivery is due."""
        self.waker.wake(wakeup.DELIVERIES)

    async def challenge(
        self, service: Service, principal_id: int, endpoint_id: UUID, expected_revision: int | None = None
    ) -> None:
        """Have an endpoint's URL prove itself. Raises Refusal like `prove`, and `busy` above CHALLENGES at once."""
        if self.challenges.locked():
            raise Refusal(
                "busy", "Other URLs are being challenged. Repeat the call in a second.", retry_after=1.0
            )
        async with self.challenges:
            await prove(
                service.database,
                self.egress,
                self.vault,
                principal_id=principal_id,
                endpoint_id=endpoint_id,
                expected_revision=expected_revision,
            )


@asynccontextmanager
async def open_outbound(service: Service) -> AsyncIterator[Outbound]:
    """Open the parts; at the end send the last wake-up and close them."""
    settings = service.settings
    destinations = Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod")
    waker, egress = Waker(service.redis, service.epoch), Egress(destinations)
    try:
        yield Outbound(destinations, waker, egress, Vault.of(settings), asyncio.Semaphore(CHALLENGES))
    finally:
        await egress.close()
        await waker.close()
