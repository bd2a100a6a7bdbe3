"""The port of a contract: its routes alone, answered as the service did from which the contract was taken."""

import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.service import Service
from core.settings import Settings
from core.settings.service import Ports
from handlers.app import LISTENERS, contract_app, create_app
from ops.stripe_events import payment_intent_succeeded, stripe_signature

ApiClient = TestClient[web.Request, web.Application]
ApiKey = Callable[..., Awaitable[str]]
TOKEN = "an-admin-token-of-these-tests"
ADMIN = {"X-Admin-Token": TOKEN}
# Routes of the inbox contract that asked for no token.
OPEN_THERE = ("/reconciliation/summary", "/admin/events", "/metrics", "/metrics/json")
MOMENT = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z"


@asynccontextmanager
async def port(
    name: str, settings: Settings, service: Service | None, **changes: Any
) -> AsyncIterator[tuple[ApiClient, ApiClient]]:
    """A client of the contract's port, and one of the common port of the same process."""
    changed = Settings.model_validate(settings.model_dump() | changes)
    common = create_app(changed, service)
    async with (
        TestClient(TestServer(common)) as beside,
        TestClient(TestServer(contract_app(common, LISTENERS[name]))) as client,
    ):
        yield client, beside


@pytest.fixture
async def inbox(settings: Settings, service: Service) -> AsyncIterator[ApiClient]:
    trusted = {"trusted_networks": "127.0.0.0/8", "admin_token": TOKEN, "stripe_signing_secrets": "whsec_x"}
    async with port("inbox_port", settings, service, **trusted) as (client, _):
        yield client


@pytest.fixture
async def wallets(settings: Settings, service: Service) -> AsyncIterator[ApiClient]:
    trusted = {"trusted_networks": "127.0.0.0/8", "jwt_secret": "test-jwt-secret-of-32-characters"}
    async with port("wallet_port", settings, service, **trusted) as (client, _):
        yield client


async def answer(client: ApiClient, path: str, **headers: str) -> tuple[int, str, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.get(path, headers=named, allow_redirects=False) as response:
        return response.status, response.headers["Content-Type"], await response.read()


def test_every_port_has_a_setting_and_the_other_way_round() -> None:
    assert LISTENERS.keys() == Ports.model_fields.keys()


async def test_health_of_the_inbox(inbox: ApiClient) -> None:
    status, media_type, body = await answer(inbox, "/health")
    assert (status, media_type) == (200, "application/json")
    assert re.fullmatch(
        rb'\{"status":"healthy","timestamp":"' + MOMENT + rb'","version":"0\.2\.0-rc"\}', body
    )
    status, _, body = await answer(inbox, "/ready")
    assert status == 200
    expected = rb'\{"status":"ready","checks":\{"database":true\},"timestamp":"' + MOMENT + rb'"\}'
    assert re.fullmatch(expected, body)


async def test_the_inbox_says_that_an_event_is_processed_where_we_say_received(
    settings: Settings,
) -> None:
    body = json.dumps(payment_intent_succeeded("x", event_id="evt_1", intent="pi_1")).encode()
    other = body.replace(b"evt_1", b"evt_2")
    async with port("inbox_port", settings, None, stripe_signing_secrets="whsec_x") as (there, common):
        for client, sent, message in (
            (there, body, "processed"),
            (there, body, "duplicate ignored"),
            (common, other, "received"),
        ):
            headers = {"Stripe-Signature": stripe_signature(sent, "whsec_x", int(time.time()))}
            response = await client.post("/webhooks/stripe", data=sent, headers=headers)
            told = await response.json()
            assert (response.status, told.get("message")) == (200, message), told


async def test_health_of_the_wallets(wallets: ApiClient, servers: Any, eventually: Any) -> None:
    assert await answer(wallets, "/health") == (200, "application/json", b'{"status":"ok","env":"test"}')
    servers.postgres.kill()
    status, media_type, body = await answer(wallets, "/health")
    assert (status, body) == (500, b"Internal Server Error")
    assert media_type.startswith("text/plain")
    servers.postgres.start()

    async def well() -> bool:
        return (await answer(wallets, "/health"))[0] == 200

    await eventually(well)


async def test_the_inbox_answers_before_the_database_is_there(settings: Settings, servers: Any) -> None:
    servers.postgres.kill()
    async with port("inbox_port", settings, None) as (client, _):
        assert (await answer(client, "/health"))[0] == 200
        status, _, body = await answer(client, "/ready")
        told = json.loads(body)
        assert (status, told["status"], told["checks"]) == (200, "not_ready", {"database": False})
        response = await client.post("/webhooks/stripe", data=b"{}")
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
    servers.postgres.start()


# The contract of internal services asks everybody for a key first: tests/handlers/payments/orchestration.
@pytest.mark.parametrize("name", sorted({*LISTENERS} - {"orchestration_port"}))
async def test_only_the_contract_answers(
    settings: Settings, service: Service, name: str, api_key: ApiKey
) -> None:
    keyed = {"Authorization": f"Bearer {await api_key()}"}
    async with port(name, settings, service) as (client, _):
        # The service that the Kaspi contract comes from told its addresses at "/".
        for path in ("/",) * (name != "kaspi_port") + (
            "/nowhere",
            "/v1/accounts",
            "/v1/webhook-sources",
            "/pay",
            "/problems/not_found",
        ):
            assert await answer(client, path, **keyed) == (
                404,
                "application/json",
                b'{"detail":"Not Found"}',
            )
        response = await client.post("/health")
        assert (response.status, await response.read()) == (405, b'{"detail":"Method Not Allowed"}')
        assert response.headers["Allow"] == "GET, HEAD"


async def test_one_contract_is_not_on_the_port_of_the_other(inbox: ApiClient, wallets: ApiClient) -> None:
    assert (await answer(inbox, "/wallet"))[0] == 404
    assert (await answer(wallets, "/wallet"))[0] == 403
    assert (await answer(wallets, "/reconciliation/summary"))[0] == 404
    for client, status in ((inbox, 400), (wallets, 404)):
        assert (await client.post("/webhooks/stripe", data=b"{}")).status == status


@pytest.mark.parametrize(
    ("name", "paths", "version"),
    [
        ("inbox_port", {"/webhooks/stripe", "/webhooks/paypal", "/admin/events", "/health"}, "0.2.0-rc"),
        ("wallet_port", {"/wallet", "/auth/login", "/wallet/transfer", "/health"}, "0.1.0"),
        ("orders_port", {"/api/v1/payments", "/api/v1/payments/{payment_id}/show", "/health"}, "0.1.0"),
    ],
)
async def test_documents_of_the_contract(
    settings: Settings, service: Service, name: str, paths: set[str], version: str
) -> None:
    async with port(name, settings, service) as (client, beside):
        for path in ("/docs", "/redoc"):
            status, media_type, _ = await answer(client, path)
            assert (status, media_type) == (200, "text/html; charset=utf-8")
        document = json.loads((await answer(client, "/openapi.json"))[2])
        assert (document["info"]["title"], document["info"]["version"]) == ("Payments API", version)
        assert document["servers"] == [{"url": "/"}]
        assert paths <= set(document["paths"])
        assert not [path for path in document["paths"] if path.startswith("/v1/")]
        assert (await answer(beside, "/redoc"))[0] == 404


async def test_a_slash_too_many_leads_to_the_path(inbox: ApiClient, wallets: ApiClient) -> None:
    for client in (inbox, wallets):
        response = await client.get("/health/", allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (307, "/health")
        assert (await client.get("/nowhere/", allow_redirects=False)).status == 404
        for path in ("/docs/nope", "/docs/..%2Fapp.py"):
            assert await answer(client, path) == (404, "application/json", b'{"detail":"Not Found"}')


@pytest.mark.parametrize(
    ("query", "kind", "context"),
    [("limit=0", "greater_than_equal", {"ge": 1}), ("limit=101", "less_than_equal", {"le": 100})],
)
async def test_faults_of_a_query_are_a_list(inbox: ApiClient, query: str, kind: str, context: object) -> None:
    status, _, body = await answer(inbox, f"/admin/events?{query}")
    (fault,) = json.loads(body)["detail"]
    assert (status, fault["type"], fault["loc"], fault["ctx"]) == (422, kind, ["query", "limit"], context)


async def test_media_types_of_the_metrics(inbox: ApiClient, wallets: ApiClient) -> None:
    status, media_type, text = await answer(inbox, "/metrics")
    assert (status, media_type) == (200, "text/plain; charset=utf-8")
    assert b"application_up 1.0" in text
    status, media_type, _ = await answer(wallets, "/metrics")
    assert status == 200
    assert media_type.startswith("text/plain; version=0.0.4")
    assert json.loads((await answer(inbox, "/metrics/json"))[2]).keys() == {"counters", "timestamp"}


async def test_reports_need_no_token_from_a_trusted_network(inbox: ApiClient) -> None:
    for path in OPEN_THERE:
        assert (await answer(inbox, path))[0] == 200, path
    # Somebody has passed this on whom the settings do not know; the peer's address says nothing of the caller.
    for path in OPEN_THERE:
        assert (await answer(inbox, path, X_Forwarded_For="192.0.2.7"))[0] == 401, path
        assert (await answer(inbox, path, X_Forwarded_For="192.0.2.7", **ADMIN))[0] == 200, path
        for name in ("Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto", "CF-Connecting-IP"):
            assert (await answer(inbox, path, **{name: "x"}))[0] == 401, name


@pytest.mark.parametrize("networks", ["", "192.0.2.0/24"])
async def test_reports_need_a_token_from_elsewhere_and_on_the_common_port(
    settings: Settings, service: Service, networks: str
) -> None:
    changes = {"admin_token": TOKEN, "trusted_networks": networks}
    async with port("inbox_port", settings, service, **changes) as (client, _):
        for path in OPEN_THERE:
            assert (await answer(client, path))[0] == 401, path
            assert (await answer(client, path, X_Admin_Token="wrong"))[0] == 401, path
            assert (await answer(client, path, **ADMIN))[0] == 200, path
    near = {"trusted_networks": "127.0.0.0/8", "allowed_origins": "*,http://ours.test"}
    async with port("inbox_port", settings, service, **changes | near) as (client, beside):
        # A page in the browser of somebody in the network is nobody to trust, but for those that are listed by name.
        for origin, status in (("http://evil.test", 401), ("http://ours.test", 200)):
            assert (await answer(client, "/admin/events", Origin=origin))[0] == status
        for path in ("/reconciliation/summary", "/admin/events"):
            assert (await answer(beside, path))[0] == 401, path
            assert (await answer(beside, path, **ADMIN))[0] == 200, path


async def test_behind_a_proxy_the_client_counts_and_not_the_proxy(
    settings: Settings, service: Service
) -> None:
    changes = {"trusted_proxies": "127.0.0.1", "trusted_networks": "127.0.0.0/8,10.1.0.0/16"}
    async with port("inbox_port", settings, service, **changes) as (client, _):

        async def status(*hops: str) -> int:
            headers = {"X_Forwarded_For": ", ".join(hops)} if hops else {}
            return (await answer(client, "/admin/events", **headers))[0]

        assert await status("10.1.2.3") == 200
        assert await status("192.0.2.7") == 401
        # A stranger who claims to be near stands left of the hop that the proxy has seen.
        assert await status("10.1.2.3", "192.0.2.7") == 401
        assert await status("127.0.0.1", "192.0.2.7") == 401
        # The proxy's own address is nobody's.
        assert await status() == 401
        assert await status("rubbish") == 401
        assert await status("127.0.0.1") == 401


async def test_a_401_says_that_no_token_is_set(settings: Settings, service: Service) -> None:
    async with port("inbox_port", settings, service) as (client, beside):
        for one in (client, beside):
            status, _, body = await answer(one, "/admin/events", **ADMIN)
            assert status == 401
            assert "No ADMIN_TOKEN is set" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    ("env", "networks"), [("dev", ("127.0.0.0/8", "::1/128")), ("test", ()), ("prod", ())]
)
def test_who_is_trusted_by_default(env: str, networks: tuple[str, ...]) -> None:
    assert Settings(env=env).trusted_networks == networks
