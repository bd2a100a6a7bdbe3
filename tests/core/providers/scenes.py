"""Orders, and servers to send them to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from core.providers.protocol import Handle, Method, Order

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# A call ends so soon where the test's point is that the answer never comes; long enough to be sent on a busy machine.
SOON_SECONDS = 0.2


def an_order(**changes: Any) -> Order:
    attempt = uuid.uuid4()
    return Order(
        attempt=attempt,
        key=f"attempt-{attempt.hex}",
        amount=1_990,
        currency="USD",
        method=Method.HOSTED_CARD,
        title="Two tickets",
        reference="order-7",
        success_url="https://shop.example/thanks",
        cancel_url="https://shop.example/cart",
    )._replace(**changes)


def handle(
    order: Order,
    provider_id: str | None = None,
    names: Mapping[str, str] | None = None,
    *,
    wanted: bool = False,
) -> Handle:
    return Handle(order, provider_id, names or {}, wanted)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The base URL of an application that runs on a port of its own."""
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()


class Troubles:
    """A middleware that spoils calls in turn: before their work is done, or after it. An empty text spoils none."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []
        self.over = asyncio.Event()

    @property
    def middleware(self) -> Any:
        @web.middleware
        async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
            if kind := self.before.pop(0) if self.before else "":
                return await self._fail(kind, request)
            response = await handler(request)
            kind = self.after.pop(0) if self.after else ""
            return await self._fail(kind, request) if kind else response

        return spoil

    async def stop(self, _app: web.Application) -> None:
        self.over.set()

    async def _fail(self, kind: str, request: web.Request) -> web.StreamResponse:
        if kind == "busy":
            return web.Response(status=429, headers={"Retry-After": "7"})
        if kind == "html":
            return web.Response(text="<html>Welcome</html>", content_type="text/html")
        if kind == "cut":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"id": ')
        elif kind == "silence":
            await self.over.wait()
        elif kind == "redirect":
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        elif kind != "reset":
            return web.Response(status=int(kind), text="{}")
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@contextmanager
def patience(provider: Any, trouble: str) -> Iterator[None]:
    """Let the provider's calls end soon where the trouble is silence, and no others."""
    caller = provider._caller
    usual = caller._total_seconds
    caller._total_seconds = SOON_SECONDS if trouble == "silence" else usual
    try:
        yield
    finally:
        caller._total_seconds = usual


# Troubles after which nobody knows whether the work was done.
UNKNOWABLE = ("silence", "reset", "html", "cut", "500", "503", "redirect")


def spoiled(troubles: Troubles) -> web.Application:
    app = web.Application(middlewares=[troubles.middleware])
    app.on_shutdown.append(troubles.stop)
    return app
