"""A load client for machines without wrk: `python -m loadtests.bench.clients.raw < job.json`.

One process, one event loop, one request in flight on each connection. It understands just enough HTTP to be cheap:
answers carry a Content-Length and are never chunked, which holds for everything it is pointed at.
"""

import asyncio
import random
import re
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from loadtests.bench.clients.client import RESULT_MARK, ClientResult, Job
from loadtests.bench.clients.workload import COUNTER_DIGITS, Workload, template_pieces
from loadtests.bench.figures import latency_summary
from ops.stripe_events import stripe_signature

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
HEADERS_END = b"\r\n\r\n"
FIRST_ERROR_STATUS = 400
#: A workload that repeats sends one of the last so many bodies again; some are still in flight then, some answered.
RECENT_BODIES = 100


class Requests:
    """The requests of one workload, each with keys and accounts of its own."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload = workload
        self._random = random.Random(seed)
        self._counter = 0
        self._payer: int | None = None
        self._body = ""
        self._recent: deque[str] = deque(maxlen=RECENT_BODIES)
        self._head = template_pieces(workload.head)
        self._item = template_pieces(workload.item)
        self._fill: dict[str, Callable[[], str]] = {
            "key": self._key,
            "from": self._from,
            "to": self._to,
            "amount": lambda: str(self._random.randrange(100, 1000)),
            "at": self._at,
            "token": lambda: self._random.choice(self._workload.tokens),
            "signature": self._signature,
            "": str,
        }

    def make(self) -> bytes:
        """The next request, whole."""
        if self._recent and self._random.random() < self._workload.repeats:
            self._body = self._random.choice(self._recent)
        else:
            self._body = ",".join([self._render(self._item) for _ in range(self._workload.items)])
            if self._workload.repeats:
                self._recent.append(self._body)
        return f"{self._render(self._head)}{self._body}{self._workload.tail}".encode("ascii")

    def _render(self, pieces: list[tuple[str, str]]) -> str:
        return "".join([literal + self._fill[name]() for literal, name in pieces])

    def _key(self) -> str:
        self._counter += 1
        return f"{self._workload.key_prefix}{self._counter:0{COUNTER_DIGITS}}"

    def _from(self) -> str:
        self._payer = self._random.randint(1, self._workload.accounts)
        return f"{self._payer:06}"

    def _to(self) -> str:
        payee = self._random.randint(1, self._workload.accounts - 1)
        if self._payer is not None and payee >= self._payer:
            payee += 1
        return f"{payee:06}"

    def _signature(self) -> str:
        return stripe_signature(self._body.encode("ascii"), self._workload.signing_secret, int(time.time()))

    def _at(self) -> str:
        moment = self._random.randint(self._workload.earliest, self._workload.latest)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


class Tally:
    """The counts of all connections together."""

    def __init__(self, workload: Workload) -> None:
        self.latencies = array("d")
        self.errors: Counter[str] = Counter()
        self.finished = False
        self._expect = workload.expect.encode()
        self._items = workload.items
        self._status = workload.status
        self.sent: dict[str, float] = {}
        self._name_sent = re.compile(workload.name_sent.encode()) if workload.name_sent else None
        self._name_answered = re.compile(workload.name_answered.encode()) if workload.name_answered else None

    def name(self, request: bytes) -> str:
        """The name of a request, where the workload says how it is found there."""
        found = self._name_sent.search(request) if self._name_sent else None
        return found.group(1).decode() if found else ""

    def answer(self, status: int, body: bytes, seconds: float, name: str = "", sent_at: float = 0.0) -> None:
        """Notes one answer, and checks the items of its body where that is asked for."""
        self.latencies.append(seconds)
        wrong = status != self._status if self._status else status >= FIRST_ERROR_STATUS
        if wrong:
            self.errors["status"] += 1
        elif self._expect:
            self.errors["item"] += self._items - body.count(self._expect)
        if not wrong and self._name_answered and (found := self._name_answered.search(body)):
            name = found.group(1).decode()
        if name and not wrong:
            self.sent[name] = sent_at


class Connection(asyncio.Protocol):
    """One connection: sends, reads one answer, sends the next, until the tally is finished."""

    def __init__(self, requests: Requests, tally: Tally) -> None:
        self._requests = requests
        self._tally = tally
        self._received = bytearray()
        self._expected: int | None = None
        self._headers_size = 0
        self._sent_at = 0.0
        self._written_at = 0.0
        self._name = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only
        self._send()

    def data_received(self, data: bytes) -> None:
        """Sends the next request once the answer to the last one is whole."""
        self._received += data
        if self._expected is None and not self._read_headers():
            return
        if self._expected is None or len(self._received) < self._expected:
            return
        status = int(self._received[9:12])
        body = bytes(self._received[self._headers_size : self._expected])
        if not self._tally.finished:
            seconds = time.perf_counter() - self._sent_at
            self._tally.answer(status, body, seconds, self._name, self._written_at)
        self._received.clear()
        self._expected = None
        self.answered()

    def answered(self) -> None:
        """Goes on after an answer."""
        self._send()

    def send(self, request: bytes, due_at: float) -> None:
        """Sends a request whose answer is waited for from `due_at` on, as time.perf_counter tells it."""
        if self._transport is not None:
            self._sent_at = due_at
            self._name = self._tally.name(request)
            self._written_at = time.perf_counter()
            self._transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name for it
        """Counts a connection that the server closed: it was asked to keep it."""
        if not self._tally.finished:
            self._tally.errors["read"] += 1

    def overdue(self, now: float, timeout_seconds: float) -> bool:
        """Whether the request in flight has waited longer than that; `now` is of time.perf_counter."""
        return now - self._sent_at > timeout_seconds

    def close(self) -> None:
        """Hangs up without waiting for the answer to the last request."""
        if self._transport is not None:
            self._transport.abort()

    def _read_headers(self) -> bool:
        end = self._received.find(HEADERS_END)
        if end < 0:
            return False
        length = CONTENT_LENGTH.search(self._received, 0, end + 2)
        self._headers_size = end + len(HEADERS_END)
        if length is None:
            self._tally.errors["unreadable"] += 1
        self._expected = self._headers_size + (int(length.group(1)) if length else 0)
        return True

    def _send(self) -> None:
        if not self._tally.finished:
            request = self._requests.make()
            self.send(request, time.perf_counter())


async def run(job: Job) -> ClientResult:
    """Does the job and returns what it saw; CPU seconds are of the measured time alone."""
    loop = asyncio.get_running_loop()
    requests, tally = Requests(job.workload, job.seed), Tally(job.workload)
    started, cpu_started = time.perf_counter(), time.process_time()
    connections: list[Connection] = []
    for _ in range(job.connections):
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(requests, tally), job.host, job.port
            )
        except OSError:
            tally.errors["connect"] += 1
        else:
            connections.append(connection)
    await asyncio.sleep(max(started + job.seconds - time.perf_counter(), 0))
    tally.finished = True
    now = time.perf_counter()
    cpu_seconds = time.process_time() - cpu_started
    tally.errors["timeout"] += sum(connection.overdue(now, job.timeout_seconds) for connection in connections)
    for connection in connections:
        connection.close()
    return ClientResult(
        requests=len(tally.latencies),
        seconds=now - started,
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
