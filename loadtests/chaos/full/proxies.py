"""The links' own process, and its remote control.

The proxies carry every connection of the service. In the process that makes the load they would wait for it, and it for
them. The stage starts it, steers it over a pair of
sockets, a line of JSON an order, and ends it. A network does not wait for a processor, so that the process comes before
all others where the machine allows that.

`python -m loadtests.chaos.full.proxies --steering FD NAME...` is how the stage starts it.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from loadtests.bench.stand import StandError, child_environment
from loadtests.chaos.full.lag import Lag
from loadtests.chaos.full.links import Link
from ops.process import open_log, spawn, stop

#: A start takes an import; an answer is due so long after a fault's own seconds.
START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 60.0, 60.0, 10.0
#: The priority of a network among processes.
NICENESS = -10
#: So much of the log is told when the process has ended.
TAIL_CHARACTERS = 1_500
PROGRAM = "loadtests.chaos.full.proxies"
#: The words of an error that says nothing about the service.
FAULT_OF_OURS = "the harness failed, not the service"


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order: let `link` lead to the port `target`, or fail in a `way`; without a link: tell the lag."""

    number: int
    link: str = ""
    target: int = 0
    way: str = ""
    seconds: float = 0.0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the order of the same number, when it is done. Number 0 greets with the links' ports."""

    number: int = 0
    ports: dict[str, int] = {}
    lag: float = 0.0
    error: str = ""


class Proxies:
    """The process, seen from the stage."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.ports: Mapping[str, int] = {}
        self._names = names
        self._folder = folder
        self._log = folder / "logs" / "links.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._awaited: dict[int, asyncio.Future[Answer]] = {}
        self._orders = 0
        self._lost = ""

    @property
    def pid(self) -> int | None:
        """The process's id, None before its start."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process, which opens its links. Raises StandError."""
        ours, theirs = socket.socketpair()
        with theirs, open_log(self._log) as output:
            self._process = spawn(
                [sys.executable, "-m", PROGRAM, f"--steering={theirs.fileno()}", *self._names],
                output=output,
                directory=self._folder,
                environment=child_environment({}),
                pass_fds=(theirs.fileno(),),
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        greeting = self._awaited[0] = asyncio.get_running_loop().create_future()
        self._listener = asyncio.create_task(self._listen(reader))
        self.ports = (await self._answer(greeting, START_SECONDS)).ports

    def aim(self, name: str, port: int) -> int:
        """Let a link lead to a port, and return its own. The order is sent before anybody can connect there."""
        self._send(link=name, target=port)
        return self.ports[name]

    async def fail(self, name: str, way: str, seconds: float) -> None:
        """Let a link fail in one of its ways, and return when that is over. Raises StandError."""
        answer = await self._ask(seconds + ANSWER_SECONDS, link=name, way=way, seconds=seconds)
        if answer.error:
            raise StandError(f"{FAULT_OF_OURS}: {name}-link.{way} raised {answer.error}")

    async def lag(self) -> float:
        """Return for how long the process has waited for its turn at most, in seconds. Raises StandError."""
        return (await self._ask(ANSWER_SECONDS)).lag

    def check(self) -> None:
        """Raise StandError where the process has ended by itself: from then on nothing that is seen is a finding."""
        if self._lost:
            raise StandError(self._lost)

    async def close(self) -> None:
        """End the process."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            await asyncio.to_thread(stop, self._process, (signal.SIGTERM, STOP_SECONDS))

    def _send(self, **order: Any) -> int:
        """Send an order, and return its number. The pair of sockets holds many: nobody waits for room."""
        self.check()
        self._orders += 1
        if self._writer is not None:
            self._writer.write(_line(Order(number=self._orders, **order)))
        return self._orders

    async def _ask(self, within: float, **order: Any) -> Answer:
        """Send an order, and return its answer."""
        answer = asyncio.get_running_loop().create_future()
        self._awaited[self._send(**order)] = answer
        return await self._answer(answer, within)

    async def _answer(self, answer: asyncio.Future[Answer], within: float) -> Answer:
        try:
            return await asyncio.wait_for(answer, within)
        except TimeoutError:
            raise StandError(
                f"{FAULT_OF_OURS}: the process of its links gave no answer{self._tail()}"
            ) from None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand each answer to the one who waits for it, until the process has ended."""
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                answer = msgspec.json.decode(line, type=Answer)
                waiting = self._awaited.pop(answer.number, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        code = await asyncio.to_thread(self._ended)
        self._lost = f"{FAULT_OF_OURS}: the process of its links ended with exit code {code}{self._tail()}"
        for waiting in self._awaited.values():
            if not waiting.done():
                waiting.set_exception(StandError(self._lost))

    def _ended(self) -> int | None:
        """Wait for the end of a process that has closed its end, and return its exit code."""
        return stop(self._process, (signal.SIGTERM, STOP_SECONDS)) if self._process else None

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace")[-TAIL_CHARACTERS:].strip() if self._log.exists() else ""
        return f"\n{self._log.name}: {text}" if text else ""


class Steered:
    """The process, seen from inside: links, and orders that are done one beside the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._links = {name: Link() for name in names}
        self._lag = Lag()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, steering: socket.socket) -> None:
        """Open the links, and do what is ordered until the stage closes its end."""
        reader, writer = await asyncio.open_unix_connection(sock=steering)
        for link in self._links.values():
            await link.start()
        self._begin(self._lag.measure())
        writer.write(_line(Answer(ports={name: link.port for name, link in self._links.items()})))
        while line := await reader.readline():
            order = msgspec.json.decode(line, type=Order)
            if order.target:
                # The next connection goes there, and so does each after it.
                self._links[order.link].target = order.target
            else:
                self._begin(self._do(order, writer))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, order: Order, writer: asyncio.StreamWriter) -> None:
        error = ""
        try:
            if order.link:
                await self._links[order.link].ways[order.way](order.seconds)
        except Exception as failed:  # noqa: BLE001 - the stage raises it
            error = repr(failed)
        writer.write(_line(Answer(number=order.number, lag=self._lag.longest, error=error)))


def _line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def main() -> None:
    """Read the command line, and carry what passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steering", type=int, required=True)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    uvloop.run(Steered(options.names).run(socket.socket(fileno=options.steering)))


if __name__ == "__main__":
    main()
