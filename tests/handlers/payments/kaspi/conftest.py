"""The Kaspi contract over HTTP, in front of a fake of the bank's proxy that remembers what it was asked for."""

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.settings import Settings
from handlers.app import LISTENERS, contract_app, create_app
from handlers.http.parts import PARTS
from tests.core.providers.scenes import Troubles, serving, spoiled

TOKEN = "an-admin-token-of-these-tests"
ADMIN = {"X-Admin-Token": TOKEN}
ACCESS = "access-token-of-the-proxy"
DEVICE = "device-token-of-a-shop"
BIN = "971240001315"
_shops = itertools.count(1)
# The tests of a module share a database, and the bank gives no number twice.
_numbers = itertools.count(12_800_000_001)


class Proxy:
    """The proxy: orders and refunds are GETs, and each is done anew; `word` is the status of every payment."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.quoting: Callable[[web.Request], str] | None = None

    def application(self) -> web.Application:
        app = spoiled(self.troubles)
        app.router.add_get("/api/v2/paymentkaspi/{endpoint}/", self.answered)
        return app

    async def answered(self, request: web.Request) -> web.Response:
        endpoint, query = request.match_info["endpoint"], dict(request.query)
        if self.quoting:
            said = {"data": {"errors": {"E-7": self.quoting(request)}}}
            return web.json_response({"status": False, **said})
        assert query.pop("access_token") == ACCESS
        self.calls.append((endpoint, query))
        if endpoint in self.answers:
            body = self.answers[endpoint]
            return web.Response(
                body=body if isinstance(body, bytes) else json.dumps(body).encode(),
                content_type="application/json",
            )
        number = next(_numbers)
        told = {
            "create": {"externalId": number, "status": "Wait"},
            "create-link": {
                "paymentLink": f"https://pay.kaspi.kz/pay/{number}",
                "paymentId": number,
                "expireDate": "2026-11-29T17:10:50.717+05:00",
            },
            "status": {"status": self.words.get(query.get("externalId", ""), "Wait")},
            "refund": {"returnOperationId": number},
        }
        return web.json_response({"status": True, "data": told[endpoint], "http_code": 200})

    def asked(self, endpoint: str) -> list[dict[str, str]]:
        """Return the parameters of the calls of one kind."""
        return [query for name, query in self.calls if name == endpoint]


class Stand:
    """The contract's port, the common port beside it, the proxy behind them, and the rows below."""

    def __init__(self, proxy: Proxy, port: Any, beside: Any, owner: Any) -> None:
        self.proxy = proxy
        self.port = port
        self.beside = beside
        self.owner = owner
        self.payments = beside.app[PARTS].payments

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Call the contract's port; return status and JSON."""
        sent: dict[str, Any] = {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}
        if isinstance(body, bytes):
            sent["data"] = body
            sent["headers"]["Content-Type"] = "application/json"
        elif body is not None:
            sent["json"] = body
        async with self.port.request(method, path, **sent) as response:
            text = await response.text()
            assert ACCESS not in text
            assert DEVICE not in text or path.startswith("/admin/configs")
            return response.status, json.loads(text)

    async def shop(self, **more: Any) -> int:
        """Add the config of a new shop."""
        shop_id = next(_shops)
        body = {"shop_id": shop_id, "organization_bin": BIN, "device_token": DEVICE, **more}
        status, told = await self.call("POST", "/admin/configs", body)
        assert status == 200, told
        return shop_id

    async def create(self, shop_id: int, **more: Any) -> tuple[int, Any]:
        """Ask a phone for a payment."""
        body = {"shop_id": shop_id, "amount": 1_990.5, "phone": "+7 701 123 45 67", "message": "Order 1"}
        return await self.call("POST", "/payments/kaspi/create", body | more)

    async def paid(self, shop_id: int, **more: Any) -> str:
        """Order a payment and let the bank see it paid; return its id."""
        _, told = await self.create(shop_id, **more)
        external_id: str = told["external_id"]
        self.proxy.words[external_id] = "Processed"
        assert (await self.call("GET", f"/payments/kaspi/status/{external_id}"))[1]["status"] == "Processed"
        return external_id

    async def refund(self, shop_id: int, external_id: str, amount: Any, **headers: str) -> tuple[int, Any]:
        """Give money back."""
        body = {"shop_id": shop_id, "external_id": external_id, "amount": amount}
        return await self.call("POST", "/payments/kaspi/refund", body, **headers)

    async def log(self, shop_id: int) -> list[tuple[Any, ...]]:
        """Return the shop's rows, the oldest first, without the words that all rows have."""
        _, rows = await self.call("GET", f"/admin/logs?shop_id={shop_id}")
        names = ("operation_type", "external_id", "amount", "status", "error_message")
        return [tuple(row[name] for name in names) for row in reversed(rows)]


@asynccontextmanager
async def standing(settings: Settings, **changes: Any) -> AsyncIterator[Stand]:
    """The surface, in development and with loopback trusted unless `changes` say otherwise."""
    proxy = Proxy()
    owner = await asyncpg.connect(str(settings.database_url))
    async with serving(proxy.application()) as url:
        own = {
            "production_api_url": f"{url}/api/v2/paymentkaspi",
            "kaspi_access_token": ACCESS,
            "kaspi_api_timeout": 0.5,
            "kaspi_max_retries": 1,
            "kaspi_retry_delay": 0.0,
            "admin_token": TOKEN,
            "trusted_networks": "127.0.0.0/8",
            "secrets_keys": "a-key-of-these-tests-with-32-characters",
        }
        common = create_app(Settings.model_validate(settings.model_dump() | own | changes))
        port = contract_app(common, LISTENERS["kaspi_port"])
        async with TestClient(TestServer(common)) as beside, TestClient(TestServer(port)) as client:
            yield Stand(proxy, client, beside, owner)
    await owner.close()


@pytest.fixture
async def stand(settings: Settings) -> AsyncIterator[Stand]:
    """The surface on its own port."""
    async with standing(settings) as stand:
        yield stand
