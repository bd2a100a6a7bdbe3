"""A principal with its endpoints, its events, and a worker's sending that a test takes step by step."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import TestClient

from core.outbox.breakers import Breakers
from core.outbox.callbacks import Courier
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.events import new_event, write_events
from core.outbox.fanout import fan_out
from core.outbox.health import Patience
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.service import Service
from core.vault import Vault
from core.work.leases import Worker
from tests.jobs.merchant import Receiver

ApiClient = TestClient[web.Request, web.Application]
HERE = Destinations.of(("127.0.0.0/8",), require_https=False)
ADMIN_TOKEN = "the token of an administrator"
# A delivery that is tried again is due at once.
AT_ONCE = Schedule(0.0, 1.0, max_attempts=3)


@dataclass
class Office:
    """The handle of a test: `call` speaks HTTP as the principal, `deliver` works until no delivery is due."""

    api: ApiClient
    service: Service
    principal: str
    key: str
    principal_id: int
    schedule: Schedule = AT_ONCE
    patience: Patience = field(default_factory=lambda: Patience(0, 0))
    breakers: Breakers = field(default_factory=lambda: Breakers(0))
    vault: Vault = field(default_factory=Vault)
    courier: Courier = field(default_factory=Courier)

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        answer = await self.api.request(
            method, path, json=body, headers={"Authorization": f"Bearer {self.key}"}
        )
        text = await answer.text()
        return answer.status, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        status, found = await self.call("GET", path)
        assert status == 200, found
        return found

    async def post(self, path: str, body: object = None, *, status: int = 202) -> Any:
        answered, found = await self.call("POST", path, body)
        assert answered == status, found
        return found

    async def endpoint(self, url: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.post("/v1/webhook-endpoints", {"url": url} | more, status=201)
        return found

    async def listen(self, receiver: Receiver, **more: Any) -> dict[str, Any]:
        endpoint = await self.endpoint(receiver.url, **more)
        receiver.secret = endpoint["secret"]
        return endpoint

    async def emit(self, event_type: str = "a.b", data: dict[str, Any] | None = None, **more: Any) -> UUID:
        async with self.service.database.transaction() as connection:
            event = new_event(self.principal_id, event_type, data or {}, **more)
            (event_id,) = await write_events(connection, [event])
            return event_id

    def sender(self) -> Sender:
        return Sender(
            self.service.database,
            Egress(HERE),
            Worker(),
            self.schedule,
            breakers=self.breakers,
            patience=self.patience,
            vault=self.vault,
            courier=self.courier,
        )

    async def deliver(self) -> None:
        await self.fan_out()
        sender = self.sender()
        try:
            idle = False
            while await sender.step() or not idle:
                # The work is done when a step finds nothing and no request was under way before it.
                idle = not sender._sending
                if sender._sending:
                    await asyncio.wait(sender._sending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self.close(sender)

    async def fan_out(self) -> None:
        while await fan_out(self.service.database):
            pass

    async def close(self, sender: Sender) -> None:
        await sender.drain(5)
        await sender._egress.close()

    async def deliveries(self, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"/v1/webhook-deliveries{query}"))["data"]
        return found

    async def sql(self, text: str, *arguments: object) -> list[Any]:
        """Look behind the curtain, or stage what would take too long to happen."""
        return list(await self.service.database.connections.pool.fetch(text, *arguments))


OpenOffice = Callable[..., Awaitable[Office]]
OpenReceiver = Callable[[], Awaitable[Receiver]]


def says(status: int, text: str = "", **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that answers with `status`."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer
