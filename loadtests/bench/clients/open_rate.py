"""The load client with an open loop: requests are sent when they are due, whatever became of those before.

`python -m loadtests.bench.clients.open_rate < job.json`. Latencies are counted from the moment that a request was
due, so that a stall is felt by all requests that it delays and not only by those that were in flight.
"""

import asyncio
import sys
import time
from collections import deque

import msgspec
import uvloop

from loadtests.bench.clients.client import RESULT_MARK, ClientResult, Job
from loadtests.bench.clients.raw import Connection, Requests, Tally
from loadtests.bench.figures import latency_summary

#: The event loop's timers are no finer.
TICK_SECONDS = 0.001


class OpenConnection(Connection):
    """One of the connections of a dispatcher; idle until it is given a request."""

    def __init__(self, dispatcher: "Dispatcher") -> None:
        super().__init__(dispatcher.requests, dispatcher.tally)
        self.waits = False
        self._dispatcher = dispatcher

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for a request."""
        self._transport = transport  # type: ignore[assignment]
        self._dispatcher.free(self)

    def answered(self) -> None:
        """Is free for the next one."""
        self.waits = False
        self._dispatcher.free(self)


class Dispatcher:
    """The queue of requests that fall due; a request that finds no free connection waits in order."""

    def __init__(self, job: Job) -> None:
        self.requests = Requests(job.workload, job.seed)
        self.tally = Tally(job.workload)
        self.idle: deque[OpenConnection] = deque()
        self.waiting: deque[float] = deque()

    def due(self, moment: float) -> None:
        """One more request is due."""
        self.waiting.append(moment)
        if self.idle:
            self._dispatch(self.idle.popleft())

    def free(self, connection: OpenConnection) -> None:
        """A connection has nothing to do: it was opened, or its request is answered."""
        if self.waiting:
            self._dispatch(connection)
        else:
            self.idle.append(connection)

    def _dispatch(self, connection: OpenConnection) -> None:
        connection.waits = True
        connection.send(self.requests.make(), self.waiting.popleft())


async def run(job: Job) -> ClientResult:
    """Does the job and returns what it saw. Requests still unanswered `timeout_seconds` after the end are errors."""
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(job)
    connections = [
        (await loop.create_connection(lambda: OpenConnection(dispatcher), job.host, job.port))[1]
        for _ in range(job.connections)
    ]
    started, cpu_started = time.perf_counter(), time.process_time()
    count = round(job.rate * job.seconds)
    for number in range(count):
        moment = started + number / job.rate
        if (wait := moment - time.perf_counter()) > 0:
            # Timers are rounded to a tick; nothing may be sent before it is due.
            await asyncio.sleep(wait + TICK_SECONDS / 2)
        dispatcher.due(moment)
        if number % 16 == 0:
            # A client that is late must read its answers all the same.
            await asyncio.sleep(0)

    def outstanding() -> int:
        return len(dispatcher.waiting) + sum(connection.waits for connection in connections)

    for _ in range(round(job.timeout_seconds / TICK_SECONDS)):
        if not outstanding():
            break
        await asyncio.sleep(TICK_SECONDS)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    tally = dispatcher.tally
    tally.finished = True
    tally.errors["timeout"] += outstanding()
    for connection in connections:
        connection.close()
    return ClientResult(
        requests=len(tally.latencies),
        seconds=seconds,
        latency_ms=latency_summary(tally.latencies),
        errors=dict(tally.errors),
        cpu_seconds=cpu_seconds,
        sent=tally.sent,
    )


def main() -> None:
    """Reads the job from standard input, does it, prints the result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    result = uvloop.run(run(job))
    sys.stdout.write(f"\n{RESULT_MARK}{msgspec.json.encode(result).decode()}\n")


if __name__ == "__main__":
    main()
