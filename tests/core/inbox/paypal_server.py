"""PayPal as far as its webhooks need it: certificates over https, the verification API, and what signs events."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.core.inbox.authority import SANDBOX_SIGNER, Issued, authority, leaf, rsa_key, server_context

WEBHOOK_ID = "8PT597110X687430LKGECATA"


@dataclass
class PayPal:
    """What is at its addresses, and what was asked of it."""

    root: Issued
    signer: Issued
    files: dict[str, bytes | int]
    asked: list[str] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    answer: str = "SUCCESS"
    held: asyncio.Event | None = None
    host: str = ""

    def url(self, name: str = "CERT-1") -> str:
        return f"https://{self.host}/v1/notifications/certs/{name}"

    def headers(self, body: bytes, *, signer: Issued | None = None, **changes: str) -> dict[str, str]:
        """The headers of a transmission that is sent now."""
        values = {
            "id": str(uuid.uuid4()),
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "url": self.url(),
            "webhook_id": WEBHOOK_ID,
        } | changes
        message = f"{values['id']}|{values['time']}|{values['webhook_id']}|{zlib.crc32(body)}"
        key = (signer or self.signer).key
        assert isinstance(key, RSAPrivateKey)
        return {
            "PAYPAL-TRANSMISSION-ID": values["id"],
            "PAYPAL-TRANSMISSION-TIME": values["time"],
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(
                key.sign(message.encode(), PKCS1v15(), SHA256())
            ).decode(),
            "PAYPAL-CERT-URL": values["url"],
            "PAYPAL-AUTH-ALGO": "SHA256withRSA",
        }

    async def certificate(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.append(name)
        if self.held is not None:
            await self.held.wait()
        found = self.files.get(name, 404)
        if isinstance(found, bytes):
            return web.Response(body=found)
        return web.Response(status=found, headers={"Location": self.url()})

    async def token(self, request: web.Request) -> web.Response:
        credentials = base64.b64encode(b"client:secret").decode()
        assert await request.text() == "grant_type=client_credentials"
        if request.headers["Authorization"] != f"Basic {credentials}":
            return web.Response(status=401)
        self.tokens += 1
        return web.json_response({"access_token": f"token-{self.tokens}", "expires_in": 32_000})

    async def verify(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != f"Bearer token-{self.tokens}":
            return web.Response(status=401)
        self.questions.append(json.loads(await request.read()))
        return web.json_response({"verification_status": self.answer})


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[PayPal]:
    """A PayPal on a port of this machine; the roots to trust it by are in `folder / "roots.pem"`."""
    root = authority("Root")
    middle = authority("Intermediate", root)
    signer = leaf(middle, SANDBOX_SIGNER, key=rsa_key())
    paypal = PayPal(root, signer, {"CERT-1": signer.pem + middle.pem})
    app = web.Application()
    app.router.add_get("/v1/notifications/certs/{name}", paypal.certificate)
    app.router.add_post("/v1/oauth2/token", paypal.token)
    app.router.add_post("/v1/notifications/verify-webhook-signature", paypal.verify)
    (folder / "roots.pem").write_bytes(root.pem)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=server_context(leaf(root, "127.0.0.1"), folder))
    paypal.host = f"127.0.0.1:{server.port}"
    try:
        yield paypal
    finally:
        await server.close()
