"""What all routes of the wallet surface have in common: headers, the order of checks, leniency, limits, refusals."""

import io
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from core import metrics
from core.platform import Platform
from core.service import Service, open_service
from core.settings import Settings
from handlers.app import ROUTES, build_app, create_app
from handlers.wallets.contract import Body
from handlers.wallets.routes import WALLETS
from tests.handlers.wallets.conftest import ADMIN, ApiClient, MakePerson, Person, Said
from tests.handlers.wallets.small_surface import anybody, process, signed_in, small_route

Wait = Callable[..., Awaitable[Any]]
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"
    ),
}
TRANSFER = "/wallet/transfer"
JSON = {"Content-Type": "application/json"}


# --- Headers


async def test_headers_of_every_answer(person: MakePerson, nobody: Person) -> None:
    ann = await person(balance=10)
    said = {
        "no-cache, max-age=0": [
            await ann.get("/wallet"),
            await nobody.get("/wallet"),
            await ann.get("/nothing"),
        ],
        "no-store": [
            await ann.post(TRANSFER, {}),
            await ann.post(TRANSFER, {"to_phone": ann.phone, "amount_cents": 1, "idempotency_key": "k"}),
            await ann.ask("DELETE", "/wallet"),
        ],
    }
    for cache_control, answers in said.items():
        for one in answers:
            assert one.headers["Cache-Control"] == cache_control, one
            assert {name: one.headers[name] for name in HEADERS} == HEADERS
            assert re.fullmatch("[0-9a-f]{32}", one.headers["X-Request-ID"])
            assert "Server" not in one.headers


async def test_request_id_is_echoed(person: MakePerson) -> None:
    ann = await person()
    said = await ann.ask("GET", "/wallet", headers={"X-Request-Id": "mine-42"})
    assert said.headers["X-Request-ID"] == "mine-42"


async def test_answers_are_compact_json(person: MakePerson) -> None:
    ann = await person()
    said = await ann.get("/wallet")
    assert said.headers["Content-Type"] == "application/json"
    assert said.body == json.dumps(said.json, separators=(",", ":")).encode()


async def test_cors(settings: Settings) -> None:
    origin = "https://app.example.org"
    async with process(settings, allowed_origins=(origin,), rate_limit_per_minute=1) as client:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key,x-anything",
        }
        preflight = await anybody(client).ask("OPTIONS", TRANSFER, headers=asked)
        assert preflight.status in {200, 204}
        assert preflight.headers["Access-Control-Allow-Methods"] == "POST"
        assert preflight.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
        first = await anybody(client).ask("GET", "/wallet", headers={"Origin": origin})
        limited = await anybody(client).ask("GET", "/wallet", headers={"Origin": origin})
        assert (first.status, limited.status) == (403, 429)
        for said in (preflight, first, limited):
            assert said.headers["Access-Control-Allow-Origin"] == origin
            assert said.headers["Access-Control-Allow-Credentials"] == "true"
        other = await anybody(client).ask("GET", "/small/open", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize("host", ["api.example.com", "wallet.internal:8443", "10.0.0.7"])
async def test_no_host_is_pinned(settings: Settings, host: str) -> None:
    async with process(settings) as client:
        assert (await anybody(client).ask("GET", "/health", headers={"Host": host})).status == 200
        assert (await anybody(client).ask("GET", "/small/open", headers={"Host": host})).status == 200


# --- Paths


async def test_trailing_slash(person: MakePerson) -> None:
    ann = await person()
    said = await ann.ask("GET", "/wallet/transactions/?x=1", allow_redirects=False)
    assert said.status == 307
    assert said.headers["Location"] == "/wallet/transactions?x=1"
    assert (await ann.get("/wallet/")).json == (await ann.get("/wallet")).json
    assert (await ann.ask("GET", "/nothing/", allow_redirects=False)).status == 404
    origin = str(ann.client.make_url("/")).rstrip("/")
    for elsewhere in ("//wallet/", "//evil.example/wallet/", "/wallet//"):
        url = URL(f"{origin}{elsewhere}", encoded=True)
        async with ann.client.session.get(url, allow_redirects=False) as response:
            assert response.status == 404 or response.headers["Location"] == "/wallet"


@pytest.mark.parametrize("host", ["a:b", "evil.example", "[::1", "a b", "x:99999", "", "evil.example:80@x"])
async def test_no_place_is_told_by_the_host_of_the_request(nobody: Person, host: str) -> None:
    """A stranger writes that header, and a proxy in front may keep the first answer for everybody."""
    for path in ("/wallet/", "/wallet/transactions/?x=1", "/auth/login/"):
        said = await nobody.ask("POST", path, headers={"Host": host}, allow_redirects=False)
        assert said.status in {307, 400}, said
        if said.status == 307:
            assert said.headers["Location"] == path.replace("/?", "?").rstrip("/")
        assert b"evil" not in said.body


async def test_unknown_path_and_method(nobody: Person) -> None:
    assert (await nobody.get("/wallet/nothing")).status == 404
    said = await nobody.ask("DELETE", TRANSFER)
    assert said.status == 405
    assert said.headers["Allow"] == "POST"


async def test_off_without_a_secret(settings: Settings) -> None:
    """Administrators and other services have secrets of their own: tests of their routes hold those."""
    async with process(settings, jwt_secret="") as client:
        for route in WALLETS.routes:
            own = route.caller in {"admin", "internal"}
            if "{" not in route.path and not own:
                headers = {"X-Admin-Token": ADMIN, "Authorization": "Bearer x"}
                said = await anybody(client).ask(route.method, route.path, {}, headers=headers)
                assert said.status == 404, route.path


# --- The order of checks


async def test_order_of_checks(settings: Settings) -> None:
    """Rate limit, JSON, token, admin token, fields: of two faults the earlier one is told."""
    admin = {"X-Admin-Token": ADMIN}
    async with process(settings) as client:
        ann = await signed_in(client, settings)

        async def status(who: Person, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
            path = client.make_url("/small/both?flag=x")
            sent = JSON | headers | ({"Authorization": f"Bearer {who.token}"} if who.token else {})
            async with client.session.post(path, data=body, headers=sent) as response:
                problem = await response.json()
                assert response.content_type == "application/json"
                return response.status, problem["code"]

        assert await status(anybody(client), b"{", {}) == (422, "validation_failed")
        assert await status(anybody(client), b"{}", admin) == (403, "not_authenticated")
        assert await status(anybody(client), b"{}", {"Authorization": "Basic x"}) == (403, "bad_credentials")
        assert await status(anybody(client), b"{}", {"Authorization": "Bearer x"}) == (401, "token_invalid")
        assert await status(ann, b"{}", {}) == (401, "admin_token_invalid")
        assert await status(ann, b"{}", admin) == (422, "validation_failed")
        assert await status(ann, b'{"amount_cents":1}', admin) == (422, "validation_failed")
        good = await ann.post("/small/both?flag=1", {"amount_cents": 1}, **admin)
        assert good.status == 200
    async with process(settings, rate_limit_per_minute=1) as client:
        await anybody(client).post("/small/both")
        said = await anybody(client).post("/small/both")
        assert said.status == 429


# --- Leniency, and its list of what does not fit


async def _errors(said: Said) -> list[dict[str, Any]]:
    assert said.status == 422, said
    problem = said.json
    assert problem["error"]["code"] == "http_422"
    errors: list[dict[str, Any]] = problem["detail"]
    return errors


async def test_lax_numbers(settings: Settings) -> None:
    async with process(settings) as client:
        somebody = anybody(client)
        for good in ("1000", 1000.0, True, 1000, " 7 "):
            assert (await somebody.post("/small/1/path", {"amount_cents": good, "more": []})).status == 200, (
                good
            )
        tried: tuple[Any, ...] = (1.5, "1.5e0", "x", None, [], {}, 0, -1, 2**62, 2**64, 10**400, "9" * 5_000)
        for bad in tried:
            assert (await somebody.post("/small/1/path", {"amount_cents": bad})).status == 422, bad


async def test_shapes_of_422(settings: Settings) -> None:
    async with process(settings) as client:
        somebody = anybody(client)

        async def errors(path: str, **sent: Any) -> list[dict[str, Any]]:
            async with client.session.post(client.make_url(path), **sent) as response:
                return await _errors(Said(response.status, await response.read(), response.headers))

        whole = {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
        assert await errors("/small/1/path") == [whole]
        assert await errors("/small/1/path", data=b"null", headers=JSON) == [whole]
        assert await errors("/small/1/path", json={"x": 1}) == [
            {"type": "missing", "loc": ["body", "amount_cents"], "msg": "Field required", "input": {"x": 1}}
        ]
        assert await errors("/small/1/path", json={"amount_cents": 0}) == [
            {
                "type": "greater_than",
                "loc": ["body", "amount_cents"],
                "msg": "Input should be greater than 0",
                "input": 0,
                "ctx": {"gt": 0},
            }
        ]
        (not_json,) = await errors("/small/1/path", data=b'{"a": }', headers=JSON)
        assert not_json == {
            "type": "json_invalid",
            "loc": ["body", 6],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": "Expecting value"},
        }
        (other_type,) = await errors(
            "/small/1/path", data=b'{"amount_cents":1}', headers={"Content-Type": "text/plain"}
        )
        assert (other_type["type"], other_type["loc"]) == ("model_attributes_type", ["body"])
        (array,) = await errors("/small/1/path", json=[1])
        assert (array["type"], array["input"]) == ("model_attributes_type", [1])
        # Without a Content-Type it is JSON.
        async with client.session.post(
            client.make_url("/small/1/path"), data=b'{"amount_cents":1}', skip_auto_headers=["Content-Type"]
        ) as response:
            assert response.status == 200
        # What is wrong in the path and in the body is told at once.
        both = await errors("/small/x/path", json={})
        assert [(error["type"], error["loc"]) for error in both] == [
            ("int_parsing", ["path", "count"]),
            ("missing", ["body", "amount_cents"]),
        ]
        ann = await signed_in(client, settings)
        query = await _errors(await ann.post("/small/both", {"amount_cents": 1}, **{"X-Admin-Token": ADMIN}))
        assert query == [
            {"type": "missing", "loc": ["query", "flag"], "msg": "Field required", "input": None}
        ]
        assert (await somebody.ask("GET", "/small/1/path")).status == 405


async def test_queries_that_cannot_be(wallets: ApiClient) -> None:
    for query in ("%00", "a%00b", "%ff", "%ed%a0%80", "x" * 7_000):
        url = URL(f"{wallets.make_url('/admin/merchants')}?phone={query}", encoded=True)
        async with wallets.session.get(url, headers={"X-Admin-Token": ADMIN}) as response:
            assert response.status in {404, 422}, await response.text()


async def test_bodies_that_cannot_be(settings: Settings) -> None:
    bodies = (
        b"{",
        b"",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"amount_cents":' + b"[" * 5_000,
        b'{"amount_cents":1,"x":"\\u0000"}',
        b'{"amount_cents":1,"\\u0000":1}',
        b'{"amount_cents":1,"x":[{"y":["\\u0000"]}]}',
        b'{"amount_cents":"\\ud800"}',
        b'"text"',
        b"0",
        b"NaN",
        b'{"amount_cents":1e999}',
        b'{"amount_cents":-0}',
        b"{" + b'"a":1,' * 1_000 + b'"b":1}',
    )
    async with process(settings) as client:
        for body in bodies:
            async with client.session.post(
                client.make_url("/small/1/path"), data=body, headers=JSON
            ) as response:
                text = await response.read()
                assert (response.status, response.content_type) == (422, "application/json"), body[:50]
                assert isinstance(json.loads(text)["detail"], list)
                assert len(text) < 30_000
        # A backslash that stands for itself is no NUL.
        fine = b'{"amount_cents":1,"x":"\\\\u0000"}'
        async with client.session.post(client.make_url("/small/1/path"), data=fine, headers=JSON) as response:
            assert response.status == 200


async def test_no_secret_is_shown_in_a_422(settings: Settings) -> None:
    class WithSecret(Body):
        password: int

    route = small_route("POST", "/small/secret", "secret", caller="anyone", body=WithSecret)
    async with (
        open_service(settings) as service,
        TestClient(TestServer(build_app(settings, (replace(WALLETS, routes=(route,)),), service))) as client,
    ):
        said = await anybody(client).post("/small/secret", {"password": "hunter2", "other": 1})
        assert said.status == 422
        assert b"hunter2" not in said.body


async def test_large_bodies(settings: Settings) -> None:
    async with process(settings) as client:
        body = io.BytesIO(b'{"amount_cents":1,"x":"%b"}' % (b"y" * 2**21))
        async with client.session.post(client.make_url("/small/1/path"), data=body, headers=JSON) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "http_413"


# --- Faults of ours


async def test_unknown_errors_are_counted_and_tell_nothing(settings: Settings) -> None:
    """The alert on 5xx reads http_requests_total, which the old service left unhandled errors out of."""
    async with process(settings) as client:
        said = await anybody(client).get("/small/broken")
        assert said.status == 500
        assert b"secret" not in said.body
        assert said.headers["X-Request-ID"]
        counted = metrics.render().decode()
        assert re.search(
            r'http_requests_total\{endpoint="/small/broken",method="GET",path="/small/broken",status="500"',
            counted,
        )


async def test_without_postgres_it_is_503(
    settings: Settings, service: Service, platform: Platform, person: MakePerson, servers: Any
) -> None:
    ann = await person()
    servers.postgres.stop()
    try:
        said = await ann.get("/wallet")
    finally:
        servers.postgres.start()
    assert said.status == 503
    assert said.headers["Retry-After"]
    assert said.json["error"]["code"] == "http_503"


async def test_every_wallet_route_is_of_the_real_application(settings: Settings) -> None:
    assert create_app(settings) is not None
    assert all(route.caller is not None for route in WALLETS.routes)
    assert [route for route in ROUTES if route in WALLETS.routes] == list(WALLETS.routes)
