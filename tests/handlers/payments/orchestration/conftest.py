"""The contract over both of its ports, with the simulator as its provider, and keys of some services."""

import io
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from core.access.internal_callers import create_caller
from core.database import Database, open_database
from core.settings import Settings
from handlers.app import LISTENERS, contract_app, create_app
from handlers.http.parts import PARTS, Parts
from handlers.simulator.site import Simulator
from ops.stripe_events import stripe_signature
from tests.core.providers.scenes import serving
from tests.sharing import Part

ApiClient = TestClient[web.Request, web.Application]
STRIPE_SECRET = "whsec_of_these_tests"
BASE = "https://payments.example/webhooks/providers/stripe"
SERVICE = "payments-service"

_numbers = itertools.count(1)


@dataclass
class Said:
    """An answer: its status, its bytes, its headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def payment(self) -> dict[str, Any]:
        assert self.status in {200, 201}, self
        found: dict[str, Any] = self.json["payment"]
        return found


@dataclass
class Contract:
    """Clients of the contract's own port and of the common one, and what tests say to them."""

    own: ApiClient
    common: ApiClient
    parts: Parts
    administration: Database
    owner: Any
    simulator: str
    session: aiohttp.ClientSession
    keys: dict[str, str] = field(default_factory=dict)

    async def key(self, name: str, *access: str) -> str:
        """Return the key of a service, made at its first use."""
        if name not in self.keys:
            self.keys[name], _ = await create_caller(self.administration, name, access or (SERVICE,))
        return self.keys[name]

    async def ask(
        self, method: str, path: str, body: Any = None, *, caller: str | None = "gateway", **more: Any
    ) -> Said:
        """Ask as a service, with both headers; `headers` replace them, and None leaves one out."""
        headers = {"X-Request-ID": f"t-{next(_numbers)}"} | more.pop("headers", {})
        if caller is not None:
            headers.setdefault("X-API-Key", await self.key(caller))
        client = self.common if more.pop("common", False) else self.own
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        sent = {name: value for name, value in headers.items() if value is not None}
        skipped = ("Content-Type",) if headers.get("Content-Type") is None else ()
        response: ClientResponse = await client.request(
            method,
            path,
            data=None if data is None else io.BytesIO(data),
            headers=sent,
            skip_auto_headers=skipped,
            allow_redirects=False,
            **more,
        )
        return Said(response.status, await response.read(), response.headers)

    def order(self, **more: Any) -> dict[str, Any]:
        """Return the body of a new order."""
        number = next(_numbers)
        return {
            "request_id": f"r-{number}",
            "caller_service": "checkout",
            "resource_type": "order",
            "resource_id": f"{number}",
            "amount_cents": 1250,
            "currency": "usd",
            "payment_method": 1,
            "payment_type": 1,
            "status_callback_url": "https://checkout.example/status",
            **more,
        }

    async def create(self, *, caller: str = "gateway", **more: Any) -> dict[str, Any]:
        """Create a payment."""
        return (await self.ask("POST", "/payments", self.order(**more), caller=caller)).payment

    async def simulate(self, method: str, path: str, body: Any) -> None:
        """Tell the simulator something."""
        async with self.session.request(method, self.simulator + path, json=body) as response:
            assert response.status < 300, await response.text()

    async def event(
        self,
        payment: Mapping[str, Any],
        event_type: str = "checkout.session.completed",
        *,
        event_id: str = "",
        secret: str = STRIPE_SECRET,
        caller: str | None = None,
        headers: Mapping[str, Any] | None = None,
        enveloped: bool = False,
        path: str = "",
        **of_object: Any,
    ) -> Said:
        """Post an event of Stripe about a payment to its own address."""
        told = {
            "id": payment["provider_payment_id"], "object": "checkout.session", "status": "complete",
            "payment_status": "paid", "amount_total": payment["amount_cents"],
            "currency": payment["currency"].lower(), **of_object,
        }  # fmt: skip
        event = {
            "id": event_id or f"evt_{next(_numbers)}", "object": "event", "type": event_type,
            "created": int(time.time()), "livemode": False, "data": {"object": told},
        }  # fmt: skip
        raw = json.dumps(event).encode()
        signature = stripe_signature(raw, secret, int(time.time()))
        sent: dict[str, Any] = {"X-Request-ID": None} if caller is None else {}
        body = raw
        if enveloped:
            body = json.dumps({"payload": raw.decode(), "signature": signature}).encode()
        else:
            sent["Stripe-Signature"] = signature
        where = path or f"/webhooks/providers/stripe/{payment['provider_callback_hash']}"
        return await self.ask("POST", where, body, caller=caller, headers=sent | dict(headers or {}))


@pytest.fixture
async def contract(settings: Settings, part: Part) -> AsyncIterator[Contract]:
    """The contract; a payment is played by the simulator, which stands in for Stripe."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Contract]:
        async with serving(Simulator().application()) as simulator, aiohttp.ClientSession() as session:
            changes = {
                "simulator_url": simulator,
                "stripe_signing_secrets": STRIPE_SECRET,
                "stripe_livemode": "both",
                "payments_provider_callback_base_url": BASE,
            }
            changed = Settings.model_validate(settings.model_dump() | changes)
            administration = await open_database(changed, role=None, size=2)
            owner = await asyncpg.connect(str(settings.database_url))
            common = create_app(changed)
            async with (
                TestClient(TestServer(common)) as beside,
                TestClient(TestServer(contract_app(common, LISTENERS["orchestration_port"]))) as own,
            ):
                yield Contract(own, beside, common[PARTS], administration, owner, simulator, session)
            await administration.close()
            await owner.close()

    async with part("contract", opened) as found:
        yield found
