"""A small surface of the wallets' kind beside the real one: what all routes have in common is tried on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.identity.tokens import Tokens
from core.service import open_service
from core.settings import Settings
from core.wallets.users import User
from handlers.app import SURFACES, build_app
from handlers.http.parts import PARTS
from handlers.http.route import Call, Route, answer
from handlers.wallets.contract import Body, Cents, Detail
from handlers.wallets.routes import WALLETS
from tests.handlers.wallets.conftest import ApiClient, Person


class Amount(Body):
    amount_cents: Cents


class Flag(Body):
    flag: bool


async def _ok(_call: Call) -> web.Response:
    return answer(200, Detail("ok"))


async def _broken(_call: Call) -> web.Response:
    raise RuntimeError("a secret that nobody may see")


def small_route(method: str, path: str, operation: str, **more: Any) -> Route:
    return Route(method, path, _ok, operation, "x", "small", answers={200: Detail}, **more)


SMALL = (
    small_route("POST", "/auth/login", "small_login", caller="anyone", body=Amount),
    small_route("POST", "/auth/request_otp", "request_otp", caller="anyone", body=Amount),
    small_route("POST", "/small/both", "both", caller="user+admin", body=Amount, query=Flag),
    small_route(
        "POST", "/small/{count}/path", "in_path", caller="anyone", body=Amount, parameters={"count": int}
    ),
    small_route("GET", "/small/open", "open", caller="anyone"),
    Route(
        "GET",
        "/small/broken",
        _broken,
        "small_broken",
        "x",
        "small",
        caller="anyone",
        answers={200: Detail},
    ),
)


@asynccontextmanager
async def process(settings: Settings, **changes: Any) -> AsyncIterator[ApiClient]:
    """An application of its own, with the small routes beside the real ones."""
    changed = Settings.model_validate(settings.model_dump() | changes)
    routes = tuple(route for route in WALLETS.routes if not route.path.startswith("/auth/"))
    others = (surface for surface in SURFACES if surface is not WALLETS)
    small = replace(WALLETS, routes=(*routes, *SMALL))
    async with (
        open_service(changed) as service,
        TestClient(TestServer(build_app(changed, (*others, small), service))) as client,
    ):
        yield client


async def signed_in(client: ApiClient, settings: Settings, phone: str = "+963900000999") -> Person:
    assert client.app is not None
    user: User = await client.app[PARTS].platform.users.ensure(phone)
    return Person(client, user, Tokens(settings).issue(user, None))


def anybody(client: ApiClient) -> Person:
    return Person(client, None, None)
