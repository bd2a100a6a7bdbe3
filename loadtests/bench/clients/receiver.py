"""A receiver of deliveries, a program of its own: `python -m loadtests.bench.clients.receiver --port N`.

`POST /hooks/{name}` answers at once and notes when it came; `POST /slow/{name}` takes its time. `GET /arrivals` tells
what came since the last `POST /forget`: the object, the name, and the moment as Unix time and as `time.perf_counter`
tells it, which on one machine is the same clock for every process. `GET /arrived/{n}` answers when so many have come.

It shares the processors with what is measured, so it does little: a request is found by its length, its body is kept as
it came, and is read when somebody asks.
"""

import argparse
import asyncio
import re
import signal
import sys
import time
from typing import Any, cast

import orjson
import uvloop

#: A slow receiver takes so long; a delivery is given up before that.
SLOW_SECONDS = 10.0
HEADERS_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
#: Where a delivery arrives, as the beginning of its request.
HOOK = b"POST /hooks/"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Arrivals:
    """The deliveries since the last `forget`, and who waits for how many of them."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes, float, float]] = []
        self.waiting: list[tuple[int, asyncio.Transport]] = []

    def note(self, name: bytes, body: bytes) -> None:
        """Note one more."""
        self.found.append((name, body, time.time(), time.perf_counter()))
        if self.waiting:
            self.tell_waiting()

    def tell_waiting(self) -> None:
        """Answer those who have waited for no more than have come."""
        here = len(self.found)
        for count, transport in self.waiting:
            if here >= count:
                transport.write(answer(str(here).encode()))
        self.waiting = [(count, transport) for count, transport in self.waiting if here < count]

    def told(self) -> bytes:
        """All of them as JSON."""
        return orjson.dumps(
            [(object_of(body), name.decode(), unix, moment) for name, body, unix, moment in self.found]
        )


class Receiver(asyncio.Protocol):
    """One connection, which is kept open."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        received, transport = self._received, self._transport
        received += data
        while transport is not None and (end := received.find(HEADERS_END)) >= 0:
            length = CONTENT_LENGTH.search(received, 0, end + 2)
            begin = end + len(HEADERS_END)
            size = begin + (int(length.group(1)) if length else 0)
            if len(received) < size:
                return
            if received.startswith(HOOK):
                name = bytes(received[len(HOOK) : received.index(b" ", len(HOOK))])
                self._arrivals.note(name, bytes(received[begin:size]))
                transport.write(NO_CONTENT)
            else:
                self._answer_rest(bytes(received[:end]), transport)
            del received[:size]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name for it
        """End the waits on this connection."""
        waiting = self._arrivals.waiting
        waiting[:] = [one for one in waiting if one[1] is not self._transport]
        self._transport = None

    def _answer_rest(self, head: bytes, transport: asyncio.Transport) -> None:
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/slow/"):
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._answer_late)
        elif path.startswith(b"/arrived/"):
            self._arrivals.waiting.append((int(path.rpartition(b"/")[2]), transport))
            self._arrivals.tell_waiting()
        elif path == b"/arrivals":
            transport.write(answer(self._arrivals.told()))
        elif path == b"/count":
            transport.write(answer(str(len(self._arrivals.found)).encode()))
        elif path == b"/forget":
            self._arrivals.found.clear()
            transport.write(NO_CONTENT)
        elif path == b"/ready":
            transport.write(answer(b"ready"))
        else:
            transport.write(answer(b"nothing is here", b"404 Not Found"))

    def _answer_late(self) -> None:
        if self._transport is not None:
            self._transport.write(NO_CONTENT)


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """One answer with a body."""
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    return head + body


def object_of(body: bytes) -> str:
    """The id of what an event is about: its object, or the transfer where it names nothing else."""
    data: dict[str, Any] = orjson.loads(body)["data"]
    return str(data.get("id") or data.get("transfer_id") or "")


async def serve(port: int) -> None:
    """Serves on loopback until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    arrivals = Arrivals()
    server = await loop.create_server(lambda: Receiver(arrivals), "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"PORT {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
