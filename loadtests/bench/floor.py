"""Floor 1, a program of its own: the least an aiohttp service on uvloop could do for the same request and answer.

It reads and decodes the body and answers as many bytes of the same content type. It does not check, log, count or
store anything. `python -m loadtests.bench.floor --body FILE` prints "PORT <number>" once it listens.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import orjson
import uvloop
from aiohttp import web

#: A batch of 1,000 transfers is about 150 KB.
MAX_REQUEST_BYTES = 4 * 2**20


def create_floor(body: bytes, status: int, content_type: str) -> web.Application:
    """The bare application: one handler for every path."""

    async def answer(request: web.Request) -> web.Response:
        received = await request.read()
        if received:
            orjson.loads(received)
        return web.Response(body=body, status=status, content_type=content_type)

    app = web.Application(client_max_size=MAX_REQUEST_BYTES)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


async def serve(app: web.Application, port: int) -> None:
    """Serves on loopback until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sys.stdout.write(f"PORT {runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--status", type=int, default=201)
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--body", type=Path, required=True, help="file whose bytes are the answer")
    arguments = parser.parse_args()
    app = create_floor(arguments.body.read_bytes(), arguments.status, arguments.content_type)
    uvloop.run(serve(app, arguments.port))


if __name__ == "__main__":
    main()
