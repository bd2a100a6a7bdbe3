"""The arrivals at the receiver (`loadtests.bench.clients.receiver`), and the time that each was on the way."""

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from loadtests.bench.clients.client import ClientResult
from loadtests.bench.clients.workload import Caller
from loadtests.bench.figures import latency_summary
from loadtests.bench.stand import fetch

#: Deliveries of which none has come for so long are missing.
ARRIVE_SECONDS = 60


class Arrival(NamedTuple):
    """One delivery: the object, the name of the endpoint, its Unix time and its moment of `time.perf_counter`."""

    object_id: str
    hook: str
    unix: float
    moment: float


class Collected(NamedTuple):
    """The first arrival of each wanted object, and how the others fared, as a figure's errors."""

    first: dict[str, Arrival]
    errors: dict[str, int]


async def forget(receiver: Caller) -> None:
    """Let the receiver forget what came so far."""
    await fetch(receiver, "POST", "/forget")


async def wait_for(receiver: Caller, count: int) -> int:
    """Wait until so many deliveries have come, or none has for a while; return how many there are."""
    seen, since = -1, time.monotonic()
    while True:
        try:
            return int((await fetch(receiver, "GET", f"/arrived/{count}")).body)
        except TimeoutError:
            here = int((await fetch(receiver, "GET", "/count")).body)
        if here == seen and time.monotonic() - since >= ARRIVE_SECONDS:
            return here
        if here != seen:
            seen, since = here, time.monotonic()


async def arrivals_of(receiver: Caller, count: int) -> list[Arrival]:
    """Return the arrivals when there are so many, or when none has come for a while."""
    if count:
        await wait_for(receiver, count)
    return msgspec.json.decode((await fetch(receiver, "GET", "/arrivals")).body, type=list[Arrival])


async def collect(receiver: Caller, wanted: Collection[str]) -> Collected:
    """Return the arrivals of these objects when all are there, or when none has come for a while.

    Arrivals of others are of requests whose answer the client did not wait for, and do not count. A missing object is
    an error, and so is one that came twice, since no process was stopped meanwhile.
    """
    count = len(wanted)
    while True:
        found = await arrivals_of(receiver, count)
        first: dict[str, Arrival] = {}
        ours = [arrival for arrival in found if arrival.object_id in wanted]
        for arrival in ours:
            first.setdefault(arrival.object_id, arrival)
        missing = len(wanted) - len(first)
        if not missing or len(found) < count:
            errors = {"missing": missing, "twice": len(ours) - len(first)}
            return Collected(first, {kind: number for kind, number in errors.items() if number})
        count = len(found) + missing


def on_the_way(sent: ClientResult, collected: Collected) -> ClientResult:
    """The result of a client whose requests were sent at known moments: its latencies end at the receiver.

    The rate counts from the first that was sent to the last that arrived. The percentiles of the client's own answers,
    which it counts from the moment that each request was due, stand beside as `answer.p50` and so on.
    """
    moments: Mapping[str, float] = sent.sent
    latencies = [arrival.moment - moments[name] for name, arrival in collected.first.items()]
    last = max((arrival.moment for arrival in collected.first.values()), default=0.0)
    answers = {f"answer.{name}": sent.latency_ms[name] for name in ("p50", "p95", "p99") if sent.latency_ms}
    return msgspec.structs.replace(
        sent,
        requests=len(latencies),
        seconds=last - min(moments.values(), default=0.0) if latencies else 0.0,
        latency_ms=latency_summary(latencies) | answers,
        errors=sent.errors | collected.errors,
        sent={},
    )
