"""A shop for a test: a merchant with a key and tokens, the service over HTTP, and the provider of links as a server."""

import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.database import open_database
from core.outbox.destinations import Destinations
from core.outbox.send_now import send_all_due
from core.payments.flow import Payments
from core.payments.orders.merchants import Seeded, seed_merchant
from core.service import open_service
from core.settings import Settings
from handlers.app import LISTENERS, contract_app, create_app
from handlers.http.parts import PARTS
from tests.core.providers.scenes import SOON_SECONDS, Troubles, serving, spoiled
from tests.sharing import Part

ApiClient = TestClient[web.Request, web.Application]
BASE = "/api/v1/payments"
SECRET = "an-internal-webhook-secret-of-tests"
_orders = itertools.count(1)


@dataclass(frozen=True)
class Said:
    """One answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Linker:
    """The provider of links: a page of its own for each payment, and what a test makes of its answers."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.calls: list[dict[str, Any]] = []
        self.answers: list[tuple[int, str]] = []
        self.told: list[tuple[Mapping[str, str], bytes]] = []
        self.deaf_to: set[int] = set()

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        app.router.add_post("/payment-links", self.link)
        app.router.add_post("/told", self.hear)
        return app

    async def hear(self, request: web.Request) -> web.Response:
        """Be the server of all shops, too."""
        body = await request.read()
        number = json.loads(body)["payment_id"]
        self.told.append((request.headers, body))
        return web.Response(status=500 if number in self.deaf_to else 201)

    async def link(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls.append(asked)
        if self.answers:
            status, text = self.answers.pop(0)
            return web.Response(status=status, text=text, content_type="application/json")
        return web.json_response(
            {"payment_url": f"https://pay.{asked['provider']}.test/{asked['payment_id']}"}
        )


@dataclass
class Shop:
    """The service, its database as the owner, and short words for calls."""

    client: ApiClient
    port: ApiClient
    linker: Linker
    owner: Any
    settings: Settings
    payments: Payments

    async def merchant(self, tokens: int = 1_000) -> Seeded:
        database = await open_database(self.settings, role=None, size=1)
        try:
            return await seed_merchant(database, tokens)
        finally:
            await database.close()

    async def ask(
        self, method: str, path: str, who: Seeded | str | None = None, *, at_port: bool = False, **more: Any
    ) -> Said:
        """Call as a merchant by key, or as a trusted caller for the merchant of that id."""
        headers = dict(more.pop("headers", {}))
        if isinstance(who, Seeded):
            headers["X-API-Key"] = who.api_key
        elif who is not None:
            headers["X-Merchant-Id"] = who
        client = self.port if at_port else self.client
        async with client.request(method, path, headers=headers, allow_redirects=False, **more) as response:
            return Said(response.status, await response.read(), response.headers)

    def order(self, **changes: Any) -> dict[str, Any]:
        return {"order_id": next(_orders), "amount": 2, "price": "19.99", "alias": "paypal"} | changes

    async def create(self, who: Seeded, **changes: Any) -> Said:
        return await self.ask("POST", BASE, who, json=self.order(**changes))

    async def webhook(self, number: int, status: str, *, path: str = f"{BASE}/webhook", **more: Any) -> Said:
        body = json.dumps({"payment_id": number, "status": status}, separators=(",", ":")).encode()
        signed = {"X-Internal-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
        return await self.ask(
            "POST", path, data=body, headers=signed | {"Content-Type": "application/json"}, **more
        )

    async def send(self) -> None:
        """Send every notification that is due, as a worker does."""
        destinations = Destinations.of(self.settings.outbound_allow_hosts, require_https=False)
        await send_all_due(self.payments.database, self.settings, destinations)

    async def used(self, who: Seeded) -> int:
        used: int = await self.owner.fetchval(
            "SELECT used_tokens FROM order_subscriptions WHERE merchant_id = $1", who.merchant_id
        )
        return used


@pytest.fixture
async def shop(settings: Settings, part: Part) -> AsyncIterator[Shop]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Shop]:
        linker = Linker()
        async with serving(linker.application()) as url:
            changes = {
                "provider_url": url,
                "trusted_networks": "127.0.0.0/8",
                "internal_webhook_secret": SECRET,
                "merchant_callback_url": f"{url}/told",
            }
            changed = Settings.model_validate(settings.model_dump() | changes)
            owner = await asyncpg.connect(str(settings.database_url))
            async with (
                open_service(changed) as service,
                TestClient(TestServer(app := create_app(changed, service))) as client,
                TestClient(TestServer(contract_app(app, LISTENERS["orders_port"]))) as port,
            ):
                payments = app[PARTS].payments
                payments.providers["links"]._caller._total_seconds = 10 * SOON_SECONDS  # type: ignore[attr-defined]
                yield Shop(client, port, linker, owner, changed, payments)
            await owner.close()

    async with part("shop", opened) as one:
        yield one
        one.linker.answers.clear()
