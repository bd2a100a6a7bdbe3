"""What the routes of outgoing webhooks share in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web

from core import wakeup
from core.outbox.destinations import Destinations
from core.outbox.events import EVENT_TYPE_PATTERN, MAX_EVENT_TYPE
from core.service import Service
from core.wakeup import Waker

EventType = Annotated[str, msgspec.Meta(pattern=f"^{EVENT_TYPE_PATTERN}$", max_length=MAX_EVENT_TYPE)]
# A type, or a pattern: `transfer.*` is every type that begins with `transfer.`, `*` is every type.
EventPattern = Annotated[
    str, msgspec.Meta(pattern=rf"^(?:\*|{EVENT_TYPE_PATTERN}(?:\.\*)?)$", max_length=MAX_EVENT_TYPE)
]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Outbound:
    """Where deliveries may go, and how the workers are told that one is due."""

    destinations: Destinations
    waker: Waker

    def wake(self) -> None:
        """Tell the workers that a delivery is due."""
        self.waker.wake(wakeup.DELIVERIES)


OUTBOUND: web.AppKey[Outbound] = web.AppKey("outbound", Outbound)


@asynccontextmanager
async def open_outbound(service: Service) -> AsyncIterator[Outbound]:
    """Open it; at the end send the last wake-up."""
    settings = service.settings
    waker = Waker(service.redis, service.epoch)
    try:
        yield Outbound(
            Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod"), waker
        )
    finally:
        await waker.close()
