"""A merchant's server: it receives deliveries and checks both signatures by their public descriptions.

The checks share no code with the module that signs, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from multidict import CIMultiDictProxy

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A receiver refuses a delivery that is older or younger than this, by Standard Webhooks.
TOLERANCE_SECONDS = 300
# A handler that still runs when the server stops has this time to end.
SHUTDOWN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it reached the receiver. `headers` ignore the case of names."""

    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def event(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """A merchant's server on a free port of this machine, at `url` while it is `listening`.

    The first requests get the `answers`, one each; after them it answers `status`.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    status: int = 200
    url: str = ""
    secret: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep the request and answer it."""
        delivery = Delivery(request.headers, await request.read())
        self.deliveries.append(delivery)
        if self.answers:
            return await self.answers.pop(0)(request)
        return self.respond(delivery)

    def respond(self, _delivery: Delivery) -> web.Response:
        """Return the answer to a delivery that no answer was set for."""
        return web.Response(status=self.status, text="thanks")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve `POST /hooks`."""
        app = web.Application()
        app.router.add_post("/hooks", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
            yield
        finally:
            await runner.cleanup()


def problem_of(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return the first mistake of a delivery's signatures, or an empty text. `headers` ignore the case of names."""
    return standard_problem(secret, headers, body) or wallet_problem(secret, headers, body)


def standard_problem(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Check `webhook-signature` as https://www.standardwebhooks.com describes it."""
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(int(timestamp) - time.time()) > TOLERANCE_SECONDS:
        return "webhook-timestamp is not of now"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id')}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    given = headers.get("webhook-signature", "").encode().split()
    right = any(hmac.compare_digest(expected, signature) for signature in given)
    return "" if right else "webhook-signature is wrong"


def wallet_problem(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Check X-Webhook-Sign: the HMAC of timestamp, event type and body with the secret as it is shown."""
    signed = f"{headers.get('X-Webhook-Ts')}{headers.get('X-Webhook-Event')}".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    right = hmac.compare_digest(expected.encode(), headers.get("X-Webhook-Sign", "").encode())
    return "" if right else "X-Webhook-Sign is wrong"
