"""The simulator's site: the API of a provider, the page on which a payer pays, and the switches of its faults.

- `POST /v1/payments` (with `Idempotency-Key`), `GET /v1/payments/{id}`, `GET /v1/payments?key=` or `?after=&limit=`,
  `POST /v1/payments/{id}/cancel`, `…/refunds` (with `Idempotency-Key`), `GET /v1/report.csv`
- `GET` and `POST /pay/{id}`: the payer's page
- `POST /v1/payments/{id}/pay` with an outcome, `…/dispute`, `PUT /faults`, `POST /webhooks/release`: for tests
- `POST /payment-links`, `POST /payments/{token}/accept`: the provider of links for merchants' orders
"""

from __future__ import annotations

import asyncio
import csv
import io
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from aiohttp import web

from core.providers.protocol import Standing
from handlers.simulator import faults
from handlers.simulator.book import Book, OrderBody, Payment, Refused
from handlers.simulator.links import LinkDesk
from handlers.simulator.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from core.settings import Settings

_Kind = TypeVar("_Kind")

# A client that waits for a lost answer has given up long before this.
HOLD_SECONDS: Final = 120.0
MOST_BODY: Final = 64 * 1024
MOST_PAGE: Final = 1_000
MOST_SLOW_SECONDS: Final = 60.0
COLUMNS: Final = (
    "id", "attempt", "reference", "standing", "amount", "currency", "refunded", "fee", "created_at", "paid_at"
)  # fmt: skip

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Simulated payment</title>
<style>body{{font:18px system-ui;max-width:24em;margin:3em auto;padding:0 1em}}button{{font:inherit;margin:.3em 0;
padding:.6em;width:100%}}</style>
<h1>{title}</h1><p><strong>{amount} {currency}</strong> (minor units)</p><p>State: {standing}. No money moves here.</p>
<form method="post">{buttons}</form></html>"""
_BUTTONS: Final = """<button name="outcome" value="paid">Pay</button>
<button name="outcome" value="processing">Pay, and let the bank think about it</button>
<button name="outcome" value="failed">Fail</button><button name="outcome" value="canceled">Leave</button>"""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action *",
    "Cache-Control": "no-store",
}


class _Outcome(msgspec.Struct):
    outcome: Standing = Standing.PAID


class _Amount(msgspec.Struct):
    amount: int


class Simulator:
    """One simulator. `public_url` is the address under which payers reach it; empty: that of each request."""

    def __init__(self, *, webhook_url: str = "", webhook_secret: str = "", public_url: str = "") -> None:
        self.faults = faults.Faults()
        self.webhooks = Webhooks(webhook_url, webhook_secret)
        self.book = Book(self._tell)
        self.links = LinkDesk("", "")
        self._public_url = public_url
        self._stopping = asyncio.Event()

    @classmethod
    def of(cls, settings: Settings) -> Simulator:
        """Return the simulator of the settings SIMULATOR_*, with the links of PAYMENT_URL_BASE_WEBHOOK."""
        made = cls(
            webhook_url=settings.simulator_webhook_url,
            webhook_secret=settings.simulator_webhook_secret,
            public_url=settings.simulator_url,
        )
        made.links = LinkDesk(
            settings.payment_url_base_webhook, next(iter(settings.internal_webhook_secret), "")
        )
        return made

    def application(self) -> web.Application:
        """Return the simulator as an application of its own."""
        app = web.Application(client_max_size=MOST_BODY, middlewares=[_refusals])
        app.add_routes(
            [
                web.post("/v1/payments", self.create),
                web.get("/v1/payments", self.find),
                web.get("/v1/payments/{id}", self.show),
                web.post("/v1/payments/{id}/cancel", self.cancel),
                web.post("/v1/payments/{id}/refunds", self.refund),
                web.post("/v1/payments/{id}/pay", self.pay),
                web.post("/v1/payments/{id}/dispute", self.dispute),
                web.get("/v1/report.csv", self.report),
                web.get("/pay/{id}", self.page),
                web.post("/pay/{id}", self.paid_on_page),
                web.put("/faults", self.set_faults),
                web.post("/webhooks/release", self.release),
                web.post("/payment-links", self.link),
                *self.links.routes(),
            ]
        )
        app.on_shutdown.append(self._stop)
        app.on_cleanup.append(self._close)
        return app

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Take an order, once under its key."""
        key = _key(request)
        body = await request.read()
        order = _decoded(body, OrderBody)
        own = _own_faults(order)
        words = self.faults.draw("create", own, key)

        def work() -> Payment:
            known = self.book.known(key, body)
            if known is not None:
                return known
            if "decline" in words:
                raise self.book.decline(key, body)
            payment = self.book.create(key, body, order, own)
            self._public_url = self._public_url or str(request.url.origin())
            for outcome in (Standing.PAID, Standing.PROCESSING, Standing.FAILED):
                if outcome.value in words:
                    self.book.settle(payment, outcome, words | _otherwise(own))
            return payment

        return await self._answered(request, words, work)

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Make a link for a merchant's order."""
        body, origin = await request.read(), str(request.url.origin())
        words = self.faults.draw("create", [], "payment-links")
        if "decline" in words:
            raise Refused(402, "declined", "The simulator was told to decline.")
        return await self._answered(request, words, lambda: self.links.make(body, origin))

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show a payment."""
        payment = self.book.get(request.match_info["id"])
        words = self.faults.draw("look", payment.faults, payment.id)
        return await self._answered(request, words, lambda: payment)

    async def find(self, request: web.Request) -> web.StreamResponse:
        """Show the payment of a key, or a page of all."""
        key = request.query.get("key")
        if key is not None:
            words = self.faults.draw("look", [], key)
            return await self._answered(request, words, lambda: self.book.by_key(key))
        try:
            after, limit = int(request.query.get("after", "0")), int(request.query.get("limit", "100"))
        except ValueError:
            raise Refused(400, "page", "after and limit are whole numbers.") from None
        found = self.book.page(max(0, after), min(max(1, limit), MOST_PAGE))
        payments = [self._shown(payment) for _, payment in found]
        return _json({"payments": payments, "next": found[-1][0] if found else None})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel a payment that nobody has paid."""
        payment = self.book.get(request.match_info["id"])
        words = self.faults.draw("cancel", payment.faults, payment.id)

        def work() -> Payment:
            self.book.cancel(payment)
            return payment

        return await self._answered(request, words, work)

    async def refund(self, request: web.Request) -> web.StreamResponse:
        """Give back a part of a payment, once under its key."""
        payment, key = self.book.get(request.match_info["id"]), _key(request)
        amount = _decoded(await request.read(), _Amount).amount
        words = self.faults.draw("refund", payment.faults, f"{payment.id} {key}")
        if "decline" in words:
            raise Refused(402, "refund_refused", "The simulator was told to decline.")
        return await self._answered(request, words, lambda: self.book.refund(payment, key, amount, words))

    async def pay(self, request: web.Request) -> web.StreamResponse:
        """Do as a payer does on the page; the body tells the outcome."""
        payment = self.book.get(request.match_info["id"])
        body = await request.read()
        self._settle(payment, _decoded(body, _Outcome).outcome if body else Standing.PAID)
        return _json(self._shown(payment))

    async def dispute(self, request: web.Request) -> web.StreamResponse:
        """Do as a payer's bank does; a negative amount is given back."""
        payment = self.book.get(request.match_info["id"])
        self.book.dispute(payment, _decoded(await request.read(), _Amount).amount)
        return _json(self._shown(payment))

    async def report(self, _request: web.Request) -> web.StreamResponse:
        """Return all payments as CSV, as a provider reports them."""
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(COLUMNS)
        for payment in self.book.all():
            shown = self._shown(payment)
            rows.writerow(["" if shown[name] is None else shown[name] for name in COLUMNS])
        return web.Response(text=text.getvalue(), content_type="text/csv")

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Show the payer's page."""
        payment = self.book.get(request.match_info["id"])
        text = _PAGE.format(
            title=escape(payment.order.title or "Payment"),
            amount=payment.order.amount,
            currency=escape(payment.order.currency),
            standing=payment.standing,
            buttons=_BUTTONS if payment.standing in {Standing.OPEN, Standing.PROCESSING} else "",
        )
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def paid_on_page(self, request: web.Request) -> web.StreamResponse:
        """Take the payer's choice, and send the payer back to the merchant."""
        payment = self.book.get(request.match_info["id"])
        try:
            outcome = Standing(str((await request.post()).get("outcome", "")))
        except ValueError:
            raise Refused(400, "outcome", "There is no such outcome.") from None
        with suppress(Refused):  # the payer has come back to a page of before
            if outcome is not Standing.CANCELED:
                self._settle(payment, outcome)
        order = payment.order
        back = order.success_url if payment.standing is Standing.PAID else order.cancel_url
        is_web = back is not None and back.startswith(("https://", "http://"))
        raise web.HTTPSeeOther(back if back and is_web else str(request.rel_url))

    async def set_faults(self, request: web.Request) -> web.StreamResponse:
        """Let rules of faults hold for all payments."""
        try:
            self.faults.set(_decoded(await request.read(), faults.Rules))
        except ValueError as error:
            raise Refused(400, "faults", str(error)) from None
        return _json({})

    async def release(self, _request: web.Request) -> web.StreamResponse:
        """Send the events that are held back."""
        self.webhooks.release()
        return _json({})

    def _settle(self, payment: Payment, outcome: Standing) -> None:
        self.book.settle(payment, outcome, _otherwise(payment.faults))

    def _shown(self, payment: Payment) -> dict[str, Any]:
        return payment.shown(f"{self._public_url}/pay/{payment.id}")

    def _tell(self, event_type: str, payment: Payment, fields: Mapping[str, Any]) -> None:
        words = self.faults.draw("webhook", payment.faults, f"{payment.id} {event_type}")
        self.webhooks.send(event_type, {"data": self._shown(payment), **fields}, words)

    async def _answered(
        self, request: web.Request, words: Mapping[str, str], work: Callable[[], Payment | dict[str, Any]]
    ) -> web.StreamResponse:
        """Do the work and answer, or fail before or after it, as the words say."""
        if "slow" in words:
            await self._pause(min(float(words["slow"] or 1), MOST_SLOW_SECONDS))
        for word in ("busy", "error_before", "timeout_before", "reset_before"):
            if word in words:
                return await self._lost(request, word.removesuffix("_before"), words[word])
        done = work()
        for word in sorted(faults.AFTER & words.keys()):
            return await self._lost(request, word, words[word])
        return _json(self._shown(done) if isinstance(done, Payment) else done)

    async def _lost(self, request: web.Request, word: str, value: str) -> web.StreamResponse:
        if word == "busy":
            return _json({"code": "busy"}, status=429, headers={"Retry-After": value or "1"})
        if word == "error":
            return _json({"code": "error"}, status=500)
        if word == "html":
            return web.Response(text="<html><h1>Welcome</h1></html>", content_type="text/html")
        if word == "timeout":
            await self._pause(HOLD_SECONDS)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until the simulator stops."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _stop(self, _app: web.Application) -> None:
        self._stopping.set()

    async def _close(self, _app: web.Application) -> None:
        await self.webhooks.close()
        await self.links.close()


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return _json({"code": refused.code, "detail": refused.detail}, status=refused.status)


def _key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not 0 < len(key) <= 255:
        raise Refused(400, "key", "An Idempotency-Key of up to 255 characters is needed.")
    return key


def _decoded(body: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "body", str(error)) from None


def _own_faults(order: OrderBody) -> list[faults.Fault]:
    try:
        return faults.of_order(order.amount, order.metadata)
    except ValueError as error:
        raise Refused(400, "faults", str(error)) from None


def _otherwise(own: list[faults.Fault]) -> dict[str, str]:
    """Return how a payment comes out otherwise, whenever it is paid."""
    return {
        fault.word: fault.value
        for fault in own
        if fault.operation == "create" and fault.word in {"wrong_amount", "wrong_currency"}
    }


def _json(
    fields: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(fields), status=status, headers=headers, content_type="application/json"
    )
