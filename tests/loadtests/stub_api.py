"""A program that stands in for the API: answers what the clients look for, and posts singles by a direct call.

Of events it checks the signature, as what is measured depends on the verdict.

Reads APP_PORT, and DATABASE_URL where it shall post. STUB_DELAY_MS and STUB_FAIL=1 make it slow or failing. Prints
"PORT <number>" once it listens.
"""

import asyncio
import os
import sys
from typing import cast

import asyncpg
import orjson
import uvloop
from aiohttp import web

from loadtests.bench import posting
from loadtests.bench.clients.workload import BATCH_ITEM_DONE, QR_PATH, STRIPE_PATH, STRIPE_SECRET
from loadtests.bench.subject import Connection
from ops.stripe_events import stripe_signature

DATABASE_URL = os.environ.get("DATABASE_URL", "")
DELAY_SECONDS = float(os.environ.get("STUB_DELAY_MS", "0")) / 1000
FAILS = os.environ.get("STUB_FAIL") == "1"


async def main() -> None:
    pool = await asyncpg.create_pool(DATABASE_URL, min_size=1, max_size=4) if DATABASE_URL else None

    async def post() -> None:
        if pool is not None:
            async with pool.acquire() as connection:
                await (await posting.direct(cast("Connection", connection), books, 1))()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(DELAY_SECONDS)
        if FAILS and request.path != "/ready":
            return web.json_response({"code": "internal_error"}, status=500)
        body = await request.read()
        if request.path == STRIPE_PATH:
            header = request.headers["Stripe-Signature"]
            signed_at = int(header.partition(",")[0].removeprefix("t="))
            genuine = header == stripe_signature(body, STRIPE_SECRET, signed_at)
            return web.json_response({"status": "ok" if genuine else "error"}, status=200 if genuine else 400)
        items = 1
        if request.path == "/v1/transfers/batch":
            items = len(orjson.loads(body)["transfers"])
        elif request.path == "/v1/transfers":
            await post()
        results = ",".join([f"{{{BATCH_ITEM_DONE}}}"] * items)
        status = 201 if request.method == "POST" and request.path != QR_PATH else 200
        return web.Response(text=f'{{"results":[{results}]}}', status=status, content_type="application/json")

    if pool is not None:
        async with pool.acquire() as connection:
            books = await posting.books(cast("Connection", connection))
    app = web.Application(client_max_size=2**22)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("APP_PORT", "0"))).start()
    sys.stdout.write(f"PORT {runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
