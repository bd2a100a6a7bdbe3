"""A receiver of deliveries, a program of its own: `python -m loadtests.bench.clients.receiver --port N`.

`POST /hooks/{name}` answers at once and notes when it came; `POST /slow/{name}` takes its time. `GET /arrivals` tells
what came since the last `POST /forget`: object, name and Unix time of each.
"""

import argparse
import asyncio
import time

import orjson
import uvloop
from aiohttp import web

from loadtests.bench.floor import serve

#: A slow receiver takes so long; a delivery is given up before that.
SLOW_SECONDS = 10.0


def create_receiver() -> web.Application:
    """The application."""
    arrivals: list[tuple[str, str, float]] = []

    async def note(request: web.Request) -> web.Response:
        moment = time.time()
        arrivals.append(
            (orjson.loads(await request.read())["data"]["id"], request.match_info["name"], moment)
        )
        return web.Response(status=204)

    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(SLOW_SECONDS)
        return web.Response(status=204)

    async def tell(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(arrivals), content_type="application/json")

    async def count(_: web.Request) -> web.Response:
        return web.Response(text=str(len(arrivals)))

    async def forget(_: web.Request) -> web.Response:
        arrivals.clear()
        return web.Response(status=204)

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ready")

    app = web.Application()
    app.add_routes(
        [
            web.post("/hooks/{name}", note),
            web.post("/slow/{name}", slow),
            web.get("/arrivals", tell),
            web.get("/count", count),
            web.post("/forget", forget),
            web.get("/ready", ready),
        ]
    )
    return app


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(create_receiver(), parser.parse_args().port))


if __name__ == "__main__":
    main()
