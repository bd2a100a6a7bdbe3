"""A small application of the same make as the real one: what all routes have in common is tested on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from msgspec import Meta

from core.errors import Refusal, Unavailable
from core.service import Service
from core.settings import Settings
from handlers.app import build_app
from handlers.http.dispatch import ApiSurface
from handlers.http.route import Call, Route, answer

Code = Annotated[str, Meta(min_length=1, max_length=64)]
SmallApi = TestClient[web.Request, web.Application]
ApiKey = Callable[..., Awaitable[str]]
GOOD = b'{"amount":5}'


class Leg(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account: Code
    amount: Annotated[int, Meta(ge=-(2**62) + 1, le=2**62 - 1)]


class NewThing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: Annotated[int, Meta(ge=1, le=2**62 - 1)]
    reference: Annotated[str, Meta(max_length=64)] | None = None
    legs: Annotated[list[Leg], Meta(max_length=5)] = []
    metadata: dict[str, Any] = {}
    effective_at: Annotated[datetime, Meta(tz=True)] | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    items: Annotated[list[NewThing], Meta(min_length=1, max_length=5_000)]


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str = "none"


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    reference: Annotated[str, Meta(max_length=64)] | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None
    all: bool = False


class Thing(msgspec.Struct, frozen=True):
    id: int
    amount: int


@dataclass
class Seen:
    """What reached the handlers, and how a test holds one of them up."""

    calls: list[Call] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    finished: int = 0


def surfaces(seen: Seen) -> tuple[ApiSurface]:
    """The surface of the small application."""

    async def create(call: Call) -> web.Response:
        seen.calls.append(call)
        call.frozen = True
        if call.body.amount == 402:
            raise Refusal("insufficient_funds", "There is too little.", available=1)
        return answer(201, Thing(len(seen.calls), call.body.amount), {"Location": "/v1/things/1"})

    async def create_many(call: Call) -> web.Response:
        seen.calls.append(call)
        return answer(200, len(call.body.items))

    async def show(call: Call) -> web.Response:
        seen.calls.append(call)
        return answer(200, Thing(0, 0))

    async def note(call: Call) -> web.Response:
        seen.calls.append(call)
        return answer(200, call.body.text)

    async def raw(call: Call) -> web.Response:
        seen.calls.append(call)
        return answer(200, len(call.raw))

    async def broken(_call: Call) -> web.Response:
        raise RuntimeError("a secret that nobody may see")

    async def unavailable(_call: Call) -> web.Response:
        raise Unavailable

    async def slow(_call: Call) -> web.Response:
        seen.entered.set()
        await seen.go_on.wait()
        seen.finished += 1
        return answer(200, None)

    async def stream(call: Call) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/csv"})
        await response.prepare(call.request)
        await response.write(b"a,b\n")
        if call.query.reference == "break":
            raise RuntimeError("the stream broke")
        await response.write_eof()
        return response

    routes = (
        Route(
            "POST", "/v1/things", create, "create_thing", "Make a thing", "things", scope="transfers:write",
            body=NewThing, answers={201: Thing}, problems=("insufficient_funds",), idempotent=True,
        ),
        Route(
            "POST", "/v1/things/batch", create_many, "create_things", "Make many", "things",
            scope="transfers:write", body=Batch, answers={200: int}, body_limit=4 * 1024 * 1024,
            cost=lambda batch: -(-len(batch.items) // 100),
        ),
        Route(
            "GET", "/v1/things/{thing}", show, "get_thing", "Show a thing", "things", scope="transfers:read",
            parameters={"thing": UUID}, answers={200: Thing}, problems=("not_found",),
        ),
        Route(
            "GET", "/v1/things", show, "list_things", "List things", "things", scope="transfers:read", query=Page,
            answers={200: Thing},
        ),
        Route("POST", "/v1/names/{name}", note, "note", "Note", "things", body=Note, answers={200: str}),
        Route("POST", "/v1/raw", raw, "raw", "Take bytes", "things", raw=True, answers={200: int}),
        Route("GET", "/v1/broken", broken, "broken", "Break", "things", answers={200: None}, hidden=True),
        Route("GET", "/v1/unavailable", unavailable, "unavailable", "Be gone", "things", hidden=True),
        Route("POST", "/v1/slow", slow, "slow", "Wait", "things", hidden=True),
        Route("GET", "/v1/stream", stream, "stream", "Stream", "things", query=Page, hidden=True),
    )  # fmt: skip
    return (ApiSurface("things", routes),)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def small(settings: Settings, service: Service, seen: Seen) -> AsyncIterator[SmallApi]:
    """A client of the small application."""
    async with TestClient(TestServer(build_app(settings, surfaces(seen), service))) as client:
        yield client


@pytest.fixture
async def key(api_key: ApiKey) -> str:
    return await api_key("transfers:write", "transfers:read")


async def problem(response: ClientResponse, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await response.read())
    assert (response.status, body["error"]["code"]) == (status, code), body
    assert response.content_type == "application/problem+json"
    assert body["status"] == status
    assert body["type"] == f"/problems/{code}"
    assert body["detail"] == body["error"]["message"]
    assert body["detail"].endswith(".")
    return body


def headers(key: str, **more: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {key}",
        "Idempotency-Key": "k-1",
        "Content-Type": "application/json",
    } | more
