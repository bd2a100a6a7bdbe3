"""One process that serves the HTTP API on a socket it inherits; started by the supervisor."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvloop
from aiohttp import hdrs, web

from ops.listening import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable

# After the signal to stop, a client that keeps its connection hears on its next answer that it ends; one that is idle
# for this long meanwhile is cut off between two requests.
FAREWELL_SECONDS = 0.5
FAREWELL_POLL_SECONDS = 0.02
# Beyond the requests' own bound: closing pools, the last flush of metrics.
CLEANUP_SECONDS = 5
# Objects made and not freed before the collector looks for cycles among them; 700 by default.
GC_ALLOCATIONS = 20_000
# Longer than the 60 s for which the usual proxies keep an idle connection: the proxy must be the one that closes it.
KEEPALIVE_SECONDS = 75.0


async def serve(
    app: web.Application,
    listener: socket.socket,
    *,
    shutdown_timeout_secs: float,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept no more, let requests in progress finish within the bound, return."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def say_farewell(_request: web.Request, response: web.StreamResponse) -> None:
        if stop.is_set():
            # aiohttp has written its own headers by now, so that its `force_close` alone would hang up unannounced.
            response.headers[hdrs.CONNECTION] = "close"
            response.force_close()

    app.on_response_prepare.append(say_farewell)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=shutdown_timeout_secs,
    )
    await runner.setup()
    try:
        site = web.SockSite(runner, listener, backlog=BACKLOG)
        await site.start()
        # What is there now stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # A request makes hundreds of objects and no cycles; at the default the looks for them took 6 % of the time.
        gc.set_threshold(GC_ALLOCATIONS)
        on_ready()
        await stop.wait()
        # The kernel ends us if the clean-up hangs, also where no supervisor lives that would.
        signal.alarm(int(shutdown_timeout_secs) + CLEANUP_SECONDS)
        on_stop()
        await site.stop()
        await _let_clients_go(runner)
    finally:
        await runner.cleanup()


async def _let_clients_go(runner: web.AppRunner) -> None:
    """Wait until every client has gone with its last answer, at most `FAREWELL_SECONDS`."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + FAREWELL_SECONDS
    while loop.time() < give_up_at:
        # Before the first look too: a connection that was just accepted is not in the list yet.
        await asyncio.sleep(FAREWELL_POLL_SECONDS)
        if runner.server is None or not runner.server.connections:
            return


def main() -> int:
    """Serve with the settings of the environment. The exit code is 2 for settings that are refused."""
    # Here, because the supervisor's tests serve something smaller.
    from core.log import configure_logging
    from core.settings import SettingsError, load_settings
    from handlers.app import create_app
    from handlers.health import READINESS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen-fd", type=int, required=True, help="the listening socket")
    parser.add_argument(
        "--ready-fd", type=int, required=True, help="where a byte is written when we accept connections"
    )
    options = parser.parse_args()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings)

    def tell() -> None:
        os.write(options.ready_fd, b"1")
        os.close(options.ready_fd)

    with socket.socket(fileno=options.listen_fd) as listener:
        app = create_app(settings)

        def leave() -> None:
            app[READINESS].stopping = True

        bound = settings.shutdown_timeout_secs
        uvloop.run(serve(app, listener, shutdown_timeout_secs=bound, on_ready=tell, on_stop=leave))
    return 0


if __name__ == "__main__":
    sys.exit(main())
