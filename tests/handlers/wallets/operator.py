"""An operator's service that takes messages over HTTP, and the tests that read what it got."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class Operator:
    """What came, and how to answer it."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    hold: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        self.headers.append(dict(request.headers))
        if self.hold is not None:
            await self.hold.wait()
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    def code(self) -> str:
        """Return the newest code that was sent."""
        found = re.search(r"\b\d{6}\b", self.got[-1]["message"])
        assert found is not None
        return found[0]


@asynccontextmanager
async def open_operator() -> AsyncIterator[Operator]:
    operator = Operator()
    app = web.Application()
    app.router.add_post("/sms", operator.take)
    async with TestServer(app) as server:
        operator.url = str(server.make_url("/sms"))
        yield operator
        if operator.hold is not None:
            operator.hold.set()
