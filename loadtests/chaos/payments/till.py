"""A till, a program of its own: what a surface of payments does, with the engine of the settings, until it is killed.

`python -m loadtests.chaos.payments.till --port N`; POST /create and POST /cancel answer with the payment as it stands.
"""

import argparse
import asyncio
import signal
from typing import Any
from uuid import UUID

import msgspec
import uvloop
from aiohttp import web

from core.errors import Refusal
from core.payments.flow import Payments
from core.payments.payments import NewPayment, Payment
from core.payments.router import open_engine
from core.providers.protocol import Method
from core.service import open_service
from core.settings import load_settings
from core.work.wakeup import Waker

CURRENCY = "EUR"
SHOP = "chaos:merchant"


class Asked(msgspec.Struct):
    """A payment that a buyer wants."""

    request_id: str
    amount: int


class Till:
    """The routes."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def create(self, request: web.Request) -> web.Response:
        """Create a payment, once under its request id."""
        asked = msgspec.json.decode(await request.read(), type=Asked)
        new = NewPayment(
            surface="chaos",
            caller="buyers",
            request_id=asked.request_id,
            amount=asked.amount,
            currency=CURRENCY,
            method=Method.HOSTED_CARD,
            title="Tea",
            reference=asked.request_id,
            account=SHOP,
        )
        try:
            return _shown((await self._payments.create(new)).payment)
        except Refusal as refusal:
            return _answer({"code": refusal.code, "detail": refusal.detail}, 503)

    async def cancel(self, request: web.Request) -> web.Response:
        """Give a payment up."""
        payment = msgspec.json.decode(await request.read(), type=dict[str, Any])["id"]
        try:
            return _shown(await self._payments.cancel(UUID(payment), "caller"))
        except Refusal as refusal:
            status = 409 if refusal.code == "payment_paid" else 503
            return _answer({"code": refusal.code, "detail": refusal.detail}, status)


def _shown(payment: Payment) -> web.Response:
    latest = payment.latest
    return _answer({"id": str(payment.id), "state": payment.state, "attempt": str(latest.id)}, 200)


def _answer(fields: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(fields), status=status, content_type="application/json")


async def serve(port: int) -> None:
    """Serve on loopback until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_service(load_settings(env_file=None)) as service:
        waker = Waker(service.redis, service.epoch)
        async with open_engine(service, waker) as payments:
            till = Till(payments)
            app = web.Application()
            app.router.add_post("/create", till.create)
            app.router.add_post("/cancel", till.cancel)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
                await stop.wait()
            finally:
                await runner.cleanup()
                await waker.close()


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
