"""One process that serves the HTTP API on a socket it inherits; started by the supervisor."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

import uvloop
from aiohttp import hdrs, web

from core.service import spare_the_collector
from handlers.http.protocol import Runner
from ops.listening import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from core.settings import Settings
    from handlers.http.parts import Parts

# After the signal to stop, a client that keeps its connection hears on its next answer that it ends; one that is idle
# for this long meanwhile is cut off between two requests.
FAREWELL_SECONDS = 0.5
FAREWELL_POLL_SECONDS = 0.02
# A request that has not ended within the bound is cancelled, and has this long to clear up after itself.
CANCELLED_SECONDS = 1.0
# The time beyond the requests' bound: for the above, closing pools, the last flush of metrics.
CLEANUP_SECONDS = 5
# The supervisor hears so often that the loop turns.
BEAT_SECONDS = 1.0
# Longer than the 60 s for which the usual proxies keep an idle connection: the proxy must be the one that closes it.
KEEPALIVE_SECONDS = 75.0


class Beside(Protocol):
    """A server of another kind in the same process."""

    async def start(self) -> object:
        """Serve."""

    async def stop(self, within_seconds: float) -> None:
        """Take no more calls, and let those under way end within the bound."""


async def serve(
    sites: Sequence[tuple[web.Application, socket.socket]],
    *,
    shutdown_timeout_secs: float,
    ready_fd: int,
    on_stop: Callable[[], None] = lambda: None,
    beside: Beside | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then accept no more, let requests in progress finish within the bound, return.

    SIGUSR1 comes some time before, if SHUTDOWN_DRAIN_SECS says so: from then on each answer ends its connection.

    The first application of `sites` lives longest: the others, and the server `beside`, may share its parts. A byte is
    written to `ready_fd` when connections are accepted, and once a second from then on.
    """
    stop, leaving = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        leaving.set()
        on_stop()

    loop.add_signal_handler(signal.SIGUSR1, leave)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def say_farewell(_request: web.Request, response: web.StreamResponse) -> None:
        if stop.is_set() or leaving.is_set():
            # aiohttp has written its own headers by now, so that its `force_close` alone would hang up unannounced.
            response.headers[hdrs.CONNECTION] = "close"
            response.force_close()

    runners = []
    for app, _ in sites:
        app.on_response_prepare.append(say_farewell)
        runner = Runner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=CANCELLED_SECONDS,
        )
        await runner.setup()
        runners.append(runner)
    beat: asyncio.Task[None] | None = None
    try:
        for runner, (_, listener) in zip(runners, sites, strict=True):
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
        if beside is not None:
            await beside.start()
        spare_the_collector()
        beat = asyncio.create_task(_beat(ready_fd))
        await stop.wait()
        for runner in runners:
            runner.say_farewell()
        # The kernel ends this process if the clean-up hangs, also where no supervisor lives that would.
        signal.alarm(int(shutdown_timeout_secs) + CLEANUP_SECONDS)
        on_stop()
        await asyncio.gather(*(site.stop() for runner in runners for site in runner.sites))
        stopping = [_let_clients_go(runners, shutdown_timeout_secs)]
        if beside is not None:
            stopping.append(beside.stop(shutdown_timeout_secs))
        await asyncio.gather(*stopping)
    finally:
        await asyncio.gather(*(runner.cleanup() for runner in runners[1:]))
        await runners[0].cleanup()
        if beat is not None:
            beat.cancel()


async def _beat(ready_fd: int) -> None:
    """Say that the loop turns, until the process ends."""
    while True:
        # BlockingIOError: the supervisor is held up and has not read. BrokenPipeError: it is dead, and a signal comes.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(ready_fd, b"1")
        await asyncio.sleep(BEAT_SECONDS)


async def _let_clients_go(runners: Sequence[web.AppRunner], within_seconds: float) -> None:
    """Wait until every client has gone with its last answer.

    A client that is idle after `FAREWELL_SECONDS` is cut off; one whose request has begun has `within_seconds`, also
    for the rest of its body, which aiohttp's own clean-up would drop.
    """
    loop = asyncio.get_running_loop()
    farewell_until = loop.time() + FAREWELL_SECONDS
    give_up_at = loop.time() + within_seconds
    while loop.time() < give_up_at:
        # The sleep comes before the first look, too: a connection that was just accepted is not in the list yet.
        await asyncio.sleep(FAREWELL_POLL_SECONDS)
        connections = [one for runner in runners if runner.server for one in runner.server.connections]
        if not connections:
            return
        if loop.time() >= farewell_until:
            for connection in connections:
                # aiohttp has no public way to ask; the tests of the supervisor hold that this member exists.
                if not connection._request_in_progress:  # noqa: SLF001
                    connection.force_close()


def _grpc_server(parts: Parts, address: str | None) -> Beside | None:
    if address is None:
        return None
    from handlers.payments.orchestration.grpc_server import GrpcServer  # 0.2 s, for those who serve it

    host, _, port = address.rpartition(":")
    return GrpcServer(parts, host, int(port))


def main() -> int:
    """Serve with the settings of the environment. The exit code is 2 for settings that are refused."""
    # The imports stand here because the supervisor's tests serve a smaller application.
    from core import tracing
    from core.log import configure_logging
    from core.settings import SettingsError, load_settings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--listen-fd",
        action="append",
        required=True,
        metavar="SETTING=FD",
        help="a listening socket, after the setting that asked for its port; the first is app_port",
    )
    parser.add_argument(
        "--ready-fd",
        type=int,
        required=True,
        help="where a byte is written when we accept connections, and once a second from then on",
    )
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where the gRPC API is served, too")
    options = parser.parse_args()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings)
    tracing.start(settings)

    try:
        _serve_apps(settings, options)
    finally:
        tracing.stop()
    return 0


def _serve_apps(settings: Settings, options: argparse.Namespace) -> None:
    from handlers.app import LISTENERS, contract_app, create_app
    from handlers.http.parts import PARTS

    common = create_app(settings)

    def leave() -> None:
        common[PARTS].stopping = True

    with ExitStack() as stack:
        sites = []
        for word in options.listen_fd:
            setting, _, fd = word.partition("=")
            listener = stack.enter_context(socket.socket(fileno=int(fd)))
            app = contract_app(common, LISTENERS[setting]) if setting in LISTENERS else common
            sites.append((app, listener))
        uvloop.run(
            serve(
                sites,
                shutdown_timeout_secs=settings.shutdown_timeout_secs,
                ready_fd=options.ready_fd,
                on_stop=leave,
                beside=_grpc_server(common[PARTS], options.grpc),
            )
        )


if __name__ == "__main__":
    sys.exit(main())
