"""What all routes have in common: ids, headers, rates, keys, errors, and a client that hangs up."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from core import log, metrics
from core.migrations import migrate
from core.service import Service
from core.settings import Settings
from handlers.app import build_app, create_app
from ops.embedded import EmbeddedServers
from tests.handlers.conftest import Seen, SmallApi, surfaces

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ApiKey = Callable[..., Awaitable[str]]


Wait = Callable[..., Awaitable[Any]]
Lines = Callable[[str], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def access_lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Reader of the access log's lines of one route."""
    written = BytesIO()
    monkeypatch.setattr(log._access, "_out", written)

    async def read(path: str) -> list[dict[str, Any]]:
        await asyncio.sleep(0)  # the lines of one turn of the loop are written together at its end
        found = [json.loads(line) for line in written.getvalue().splitlines()]
        return [line for line in found if line["path"] == path]

    return read


async def test_request_id_is_taken_over_or_made(small: SmallApi) -> None:
    response = await small.get("/v1/stream", headers={"X-Request-ID": "shop-1042.a_b"})
    assert response.headers["X-Request-ID"] == "shop-1042.a_b"
    for bad in ("", "a b", "é", "a" * 129):
        response = await small.get("/nowhere", headers={"X-Request-ID": bad})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


async def test_trace_goes_on_in_a_span_of_our_own(small: SmallApi) -> None:
    response = await small.get("/nowhere", headers={"traceparent": TRACEPARENT})
    ours = response.headers["traceparent"]
    assert ours[:36] == TRACEPARENT[:36]
    assert ours != TRACEPARENT
    response = await small.get("/nowhere", headers={"traceparent": "rubbish"})
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", response.headers["traceparent"])


async def test_every_answer_has_the_security_headers(small: SmallApi) -> None:
    for path in ("/v1/stream", "/nowhere", "/v1/broken", "/v1/things"):
        response = await small.get(path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Permissions-Policy"].startswith("accelerometer=(), camera=()")
        assert response.headers["Cache-Control"] == "no-cache, max-age=0"
        assert "Server" not in response.headers
    assert (await small.post("/v1/things")).headers["Cache-Control"] == "no-store"


async def test_unknown_path_and_method(small: SmallApi) -> None:
    response = await small.get("/v1/thing")
    assert (response.status, response.content_type) == (404, "application/problem+json")
    assert json.loads(await response.read())["error"]["code"] == "not_found"
    response = await small.delete("/v1/things")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert json.loads(await response.read())["error"]["code"] == "method_not_allowed"


async def test_unknown_error_shows_nothing_but_the_request_id(small: SmallApi, access_lines: Lines) -> None:
    with capture_logs() as logged:
        response = await small.get("/v1/broken", headers={"X-Request-ID": "r-1"})
    body = json.loads(await response.read())
    assert (response.status, body["error"]["code"], body["request_id"]) == (500, "internal_error", "r-1")
    assert "secret" not in json.dumps(body)
    assert [(line["event"], line["exc_info"]) for line in logged] == [("request failed", True)]
    assert [line["status"] for line in await access_lines("/v1/broken")] == [500]


async def test_one_line_a_request_with_the_template(small: SmallApi, access_lines: Lines) -> None:
    await small.post("/v1/names/secret-name", headers={"X-Request-ID": "r-2"})
    (line,) = await access_lines("/v1/names/{name}")
    assert (line["method"], line["status"], line["request_id"]) == ("POST", 200, "r-2")
    assert "secret-name" not in json.dumps(line)


async def test_metrics_know_templates_only(small: SmallApi) -> None:
    for path in ("/v1/names/one", "/v1/names/two"):
        await small.post(path)
    await small.get("/scan/wp-admin")
    text = metrics.render().decode()
    assert re.search(r'http_requests_total\{endpoint="/v1/names/\{name\}",method="POST",.*status="200"', text)
    assert 'path="unmatched"' in text
    assert "wp-admin" not in text
    assert "/v1/names/one" not in text


async def test_dependency_that_is_gone(small: SmallApi) -> None:
    response = await small.get("/v1/unavailable")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(await response.read())["error"]["code"] == "database_unavailable"


async def test_frozen_answers_are_replayed_byte_for_byte(
    small: SmallApi, seen: Seen, api_key: ApiKey
) -> None:
    sent = {"Authorization": f"Bearer {await api_key()}", "Content-Type": "application/json"}
    for amount, status in ((5, 201), (402, 422)):
        keyed = sent | {"Idempotency-Key": f"k-{amount}"}
        answers = [
            await small.post("/v1/things", data=b'{"amount":%d}' % amount, headers=keyed) for _ in range(2)
        ]
        assert [answer.status for answer in answers] == [status, status]
        assert await answers[0].read() == await answers[1].read()
        assert answers[0].content_type == answers[1].content_type
        assert "Idempotent-Replayed" not in answers[0].headers
        assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert len(seen.calls) == 2


async def test_another_body_under_the_key_is_left_to_the_ledger(
    small: SmallApi, seen: Seen, api_key: ApiKey
) -> None:
    sent = {
        "Authorization": f"Bearer {await api_key()}",
        "Content-Type": "application/json",
        "Idempotency-Key": "k",
    }
    for amount in (5, 6):
        assert (await small.post("/v1/things", data=b'{"amount":%d}' % amount, headers=sent)).status == 201
    assert [call.body.amount for call in seen.calls] == [5, 6]


async def test_rate_headers_and_refusal(
    settings: Settings, service: Service, seen: Seen, api_key: ApiKey
) -> None:
    tight = settings.model_copy(update={"v1_rate_limit_per_second": 1, "v1_rate_limit_burst": 2})
    sent = {"Authorization": f"Bearer {await api_key()}"}
    async with TestClient(TestServer(build_app(tight, surfaces(seen), service))) as client:
        answers = [await client.get("/v1/things", headers=sent) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
        assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"2"}
        assert answers[2].headers["Retry-After"] == "1"
        assert json.loads(await answers[2].read())["error"]["code"] == "rate_limited"
    assert len(seen.calls) == 2


async def test_refused_requests_count_against_the_address(
    settings: Settings, service: Service, seen: Seen
) -> None:
    tight = settings.model_copy(
        update={
            "v1_rate_limit_address_per_second": 1,
            "v1_rate_limit_address_burst": 3,
            "trusted_proxies": ("127.0.0.1",),
        }
    )
    async with TestClient(TestServer(build_app(tight, surfaces(seen), service))) as client:
        statuses = [(await client.get("/v1/things")).status for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        other = await client.get("/v1/things", headers={"X-Forwarded-For": "192.0.2.7"})
        assert (other.status, other.headers["RateLimit-Remaining"]) == (401, "2")


async def test_routes_of_the_service_are_never_limited(settings: Settings, service: Service) -> None:
    tight = settings.model_copy(
        update={"v1_rate_limit_address_per_second": 1, "v1_rate_limit_address_burst": 1}
    )
    async with TestClient(TestServer(create_app(tight, service))) as client:
        answers = [await client.get("/health?from=probe") for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert "RateLimit-Limit" not in answers[0].headers


async def test_stream_has_all_headers_and_breaks_visibly(small: SmallApi) -> None:
    response = await small.get("/v1/stream")
    assert await response.read() == b"a,b\n"
    assert response.headers["RateLimit-Limit"]
    response = await small.get("/v1/stream?reference=break")
    with pytest.raises(Exception, match=r"payload|Response|Connection"):
        await response.read()


async def test_client_that_hangs_up_does_not_cancel_the_work(
    small: SmallApi, seen: Seen, eventually: Any
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(b"POST /v1/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await seen.entered.wait()
    writer.close()
    await writer.wait_closed()
    runner = small.server.runner
    assert runner is not None
    server = runner.server
    assert server is not None
    await eventually(lambda: all(connection.transport is None for connection in server.connections))
    seen.go_on.set()
    await eventually(lambda: seen.finished == 1)


async def test_head_is_get_without_the_body(small: SmallApi, api_key: ApiKey) -> None:
    response = await small.head("/v1/things", headers={"Authorization": f"Bearer {await api_key()}"})
    assert (response.status, await response.read()) == (200, b"")


@pytest.fixture
async def two_origins(settings: Settings, service: Service, seen: Seen) -> Any:
    update = {"allowed_origins": ("https://shop.example", "https://desk.example/")}
    async with TestClient(
        TestServer(build_app(settings.model_copy(update=update), surfaces(seen), service))
    ) as client:
        yield client


async def test_allowed_origin_may_read_and_send_credentials(two_origins: SmallApi) -> None:
    for origin in ("https://shop.example", "https://desk.example"):
        response = await two_origins.get("/v1/things", headers={"Origin": origin})
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Vary"] == "Origin"
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization, idempotency-key"
    response = await two_origins.options("/v1/things", headers=asked)
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert response.headers["Access-Control-Allow-Methods"] == "POST"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, idempotency-key"


async def test_other_origin_may_not(two_origins: SmallApi) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for response in (
        await two_origins.options("/v1/things", headers=asked),
        await two_origins.get("/v1/things", headers=asked),
    ):
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert response.headers["Vary"] == "Origin"


async def test_any_origin_may_read_but_not_send_credentials(
    settings: Settings, service: Service, seen: Seen
) -> None:
    everyone = settings.model_copy(update={"allowed_origins": ("*",)})
    async with TestClient(TestServer(build_app(everyone, surfaces(seen), service))) as client:
        response = await client.get("/v1/things", headers={"Origin": "https://a.example"})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers


async def test_app_waits_for_its_schema(
    settings: Settings, servers: EmbeddedServers, eventually: Wait
) -> None:
    admin = await asyncpg.connect(servers.postgres.url("postgres"))
    await admin.execute("CREATE DATABASE migrated_later")
    url = servers.postgres.url("migrated_later")
    later = settings.model_copy(update={"database_url": url, "stripe_signing_secrets": ("whsec_abc",)})
    async with TestClient(TestServer(create_app(later))) as client:
        assert (await client.get("/health")).status == 200
        assert (await client.get("/docs")).status == 200
        response = await client.get("/ready")
        assert (response.status, (await response.json())["missing"]) == (503, ["migrations"])
        response = await client.get("/v1/accounts")
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert json.loads(await response.read())["error"]["code"] == "database_unavailable"
        await migrate(url)
        await eventually(lambda: _status(client, "/ready", 200), timeout=30)
        assert (await client.get("/v1/accounts")).status == 401
        response = await client.post("/webhooks/stripe", data=b"{}")
        assert json.loads(await response.read())["error"]["code"] == "invalid_signature"
    await admin.execute("DROP DATABASE migrated_later WITH (FORCE)")
    await admin.close()


async def test_app_waits_for_postgresql(
    settings: Settings, servers: EmbeddedServers, eventually: Wait
) -> None:
    servers.postgres.kill()
    async with TestClient(TestServer(create_app(settings))) as client:
        assert (await client.get("/health")).status == 200
        response = await client.get("/ready")
        assert (response.status, (await response.json())["missing"]) == (503, ["database", "migrations"])
        assert (await client.get("/v1/accounts")).status == 503
        servers.postgres.start()
        await eventually(lambda: _status(client, "/ready", 200), timeout=30)
        assert (await client.get("/v1/accounts")).status == 401
    servers.postgres.kill()
    async with TestClient(TestServer(create_app(settings))) as client:  # which ends while it waits
        assert (await client.get("/ready")).status == 503
    servers.postgres.start()


async def _status(client: SmallApi, path: str, expected: int) -> bool:
    return (await client.get(path)).status == expected


async def test_app_opens_and_closes_its_own_service(settings: Settings) -> None:
    app: web.Application = create_app(settings)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/ready")).status == 200


async def test_applications_of_one_process_share_their_routes_and_nothing_else(
    settings: Settings, service: Service
) -> None:
    origins = ("https://one.example", "https://two.example")
    apps = [create_app(settings.model_copy(update={"allowed_origins": (each,)}), service) for each in origins]
    first, second = ([*app.router.resources()] for app in apps)
    assert first == second
    async with TestClient(TestServer(apps[0])) as one, TestClient(TestServer(apps[1])) as two:
        for client, own in ((one, origins[0]), (two, origins[1]), (one, origins[0])):
            for origin in origins:
                response = await client.get("/health", headers={"Origin": origin})
                allowed = response.headers.get("Access-Control-Allow-Origin")
                assert allowed == (origin if origin == own else None)
