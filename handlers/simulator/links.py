"""The provider of links for merchants' orders, as the old service's simulator was: a link, a page, and one webhook."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from core.errors import Refusal
from core.providers.calling import Caller
from handlers.simulator.book import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_LINKS: Final = 100_000
# The old simulator's bound of its webhook.
WEBHOOK_SECONDS: Final = 5.0
_FINISHED: Final = "finished"

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Simulated payment</title>
<h1>Payment {payment}</h1><p>By {provider}. No money moves here.</p>
<form method="post" action="/payments/{token}/accept"><button>Pay</button></form></html>"""


class _Asked(msgspec.Struct):
    payment_id: int
    merchant_id: str
    provider: str


class LinkDesk:
    """The links of one simulator, in memory. Its webhook is sent once, and its end is of no consequence."""

    def __init__(self, webhook_url: str, secret: str) -> None:
        self._secret = secret
        self._receiver = (
            Caller("the receiver", webhook_url, total_seconds=WEBHOOK_SECONDS) if webhook_url else None
        )
        self._links: dict[str, _Asked] = {}
        self._accepted: set[str] = set()

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes of payers; the site has that of making, whose calls fail as it is told to."""
        return [
            web.get("/payments/{token}", self.page),
            web.post("/payments/{token}/accept", self.accept),
        ]

    def make(self, body: bytes, origin: str) -> dict[str, Any]:
        """Make a link, the same one for the same payment. Raises Refused."""
        try:
            asked = msgspec.json.decode(body, type=_Asked)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Refused(422, "body", "The fields are payment_id, merchant_id and provider.") from None
        words = f"{asked.provider}:{asked.merchant_id}:{asked.payment_id}"
        token = hashlib.sha256(words.encode()).hexdigest()
        if len(self._links) < MOST_LINKS:
            self._links.setdefault(token, asked)
        return {"payment_url": f"{origin}/payments/{token}"}

    async def page(self, request: web.Request) -> web.Response:
        """Show the payer's page."""
        token = request.match_info["token"]
        asked = self._links.get(token)
        if asked is None:
            return _json({"detail": "Not Found"}, 404)
        text = _PAGE.format(payment=asked.payment_id, provider=escape(asked.provider), token=token)
        return web.Response(text=text, content_type="text/html")

    async def accept(self, request: web.Request) -> web.Response:
        """Take the payment, once, and tell it to the receiver."""
        token = request.match_info["token"]
        asked = self._links.get(token)
        if asked is None or token in self._accepted:
            return _json({"detail": "Payment already processed or invalid state"}, 409)
        self._accepted.add(token)
        body = f'{{"payment_id":{asked.payment_id},"status":"{_FINISHED}"}}'.encode()
        signature = hmac.digest(self._secret.encode(), body, "sha256").hex()
        if self._receiver is not None:
            headers = {"Content-Type": "application/json", "X-Internal-Signature": signature}
            with suppress(Refusal):  # the payer is done, whatever the receiver says
                await self._receiver.call("POST", "", headers=headers, body=body)
        return _json({"status": _FINISHED})

    async def close(self) -> None:
        """Close connections."""
        if self._receiver is not None:
            await self._receiver.close()


def _json(fields: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(fields), status=status, content_type="application/json")
