"""What the supervisor's tests keep running: one process, or `master <port file> <workers> <metrics> <silence>`."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import prometheus_client
import uvloop
from aiohttp import web
from prometheus_client import multiprocess

from ops.api_process import serve
from ops.listening import Listeners
from ops.supervisor import Program, Supervisor

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


def be_the_master(port_file: Path, workers: int, folder: str, silence_limit: float) -> None:
    listeners = Listeners("127.0.0.1", 0)
    command = (sys.executable, __file__)
    program = Program(
        "small",
        command,
        workers,
        serves=True,
        stop_within=5,
        silence_limit=silence_limit,
        death_signal=signal.SIGTERM,
    )
    supervisor = Supervisor(
        [program],
        [listeners],
        report=_report,
        environment={"PROMETHEUS_MULTIPROC_DIR": folder},
        on_ready=lambda: port_file.write_text(str(listeners.port)),
    )
    supervisor.run()


def _report(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "master":
        be_the_master(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
    else:
        ready_fd, listen_fd = sys.argv[2], sys.argv[4].removeprefix("app_port=")
        be_a_worker(int(listen_fd), int(ready_fd))
