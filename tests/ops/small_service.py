"""One process of the small service that the supervisor's tests keep running, started by `small_master.py`."""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

import prometheus_client
import uvloop
from aiohttp import web
from prometheus_client import multiprocess

from ops.api_process import serve

STOPPING = threading.Event()
ANSWERED = prometheus_client.Counter("answered", "Requests answered")


async def pid(_request: web.Request) -> web.Response:
    ANSWERED.inc()
    return web.json_response(os.getpid())


async def slow(request: web.Request) -> web.Response:
    """Answer when the test says so: with what the service knows of its stop by then."""
    folder = Path(request.query["folder"])
    (folder / "begun").touch()
    while not (folder / "finish").exists():  # noqa: ASYNC110 - the test is another process
        await asyncio.sleep(0.01)
    return web.json_response({"stopping": STOPPING.is_set()})


async def metrics(_request: web.Request) -> web.Response:
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return web.Response(body=prometheus_client.generate_latest(registry))


async def body(request: web.Request) -> web.Response:
    """Say that the request has begun, and in which process, before its body is there."""
    Path(request.query["begun"]).write_text(str(os.getpid()))
    return web.json_response(len(await request.read()))


def be_a_worker(listen_fd: int, ready_fd: int) -> None:
    app = web.Application()
    routes = [
        web.get("/", pid),
        web.get("/slow", slow),
        web.get("/metrics", metrics),
        web.post("/body", body),
    ]
    app.add_routes(routes)
    with socket.socket(fileno=listen_fd) as listener:
        uvloop.run(
            serve(
                [(app, listener)],
                shutdown_timeout_secs=5,
                ready_fd=ready_fd,
                on_stop=STOPPING.set,
            )
        )


if __name__ == "__main__":
    ready_fd, listen_fd = sys.argv[2], sys.argv[4].removeprefix("app_port=")
    be_a_worker(int(listen_fd), int(ready_fd))
