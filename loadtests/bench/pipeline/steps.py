"""The measurements of the whole way, each on an API that runs and a receiver that its events go to."""

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec

from loadtests.bench import machine, outbox
from loadtests.bench.clients.client import ClientResult, run_client
from loadtests.bench.clients.workload import Caller, Workload
from loadtests.bench.meter import EVENTS, Meter
from loadtests.bench.pipeline.arrivals import collect, forget, on_the_way, wait_for
from loadtests.bench.stand import SETTLE_SECONDS, Stand, StandError, wait_until

#: A backlog is taken in so fast: what one API process stores with the processors to itself.
INTAKE_RATE = 2_000
#: The first worker may be through before the last has begun; where so small a part is left, it is no measure.
LEAST_LEFT = 0.5


class Way(NamedTuple):
    """The way of events on one database: in at the API, out to the receiver."""

    stand: Stand
    meter: Meter
    database: str
    api: Caller
    receiver: Caller


async def take_in(way: Way, count: int) -> dict[str, float]:
    """Take in so many signed payments over HTTP, without measuring; return their intents, with the moments."""
    await forget(way.receiver)
    result = await run_client(
        way.api.event(traced=True),
        way.api,
        connections=way.stand.plan.ack_connections,
        seconds=count / INTAKE_RATE,
        seed=way.meter.seed(),
        client="raw",
        rate=INTAKE_RATE,
    )
    if result.errors or len(result.sent) != count:
        raise StandError(f"of {count} events {len(result.sent)} were taken in: {result.errors}")
    return result.sent


@contextlib.asynccontextmanager
async def draining(way: Way, name: str, *, events: int, workers: int = 1) -> AsyncIterator[None]:
    """Take in a backlog, start the workers, and measure from the first arrival to the last. They run on until the end.

    With several workers it counts from the moment that the last of them has begun.
    """
    sent = await take_in(way, events)
    with way.stand.workers(way.database, workers):
        if not await wait_for(way.receiver, 1):
            raise StandError("nothing came to the receiver")

        async def work() -> ClientResult:
            found = await collect(way.receiver, sent.keys())
            moments = sorted(arrival.unix for arrival in found.first.values())
            begin = moments[0]
            if workers > 1:
                async with way.stand.connect(way.database) as connection:
                    all_began = await outbox.last_worker_began(connection)
                left = sum(moment > all_began for moment in moments)
                if left >= LEAST_LEFT * len(moments):
                    begin = max(begin, all_began)
                else:
                    way.stand.say(f"  {len(moments) - left} of {len(moments)} had come when all workers ran")
            return ClientResult(
                requests=sum(moment > begin for moment in moments),
                seconds=moments[-1] - begin,
                latency_ms={},
                errors=found.errors,
                client="receiver",
            )

        await way.meter.measure(name, work(), connections=workers, unit=EVENTS)
        yield


async def at_rate(way: Way, workload: Workload, rate: float, seconds: float) -> ClientResult:
    """Send requests that are named (`traced`) at a rate; the latencies end when the receiver has each one's event."""
    await forget(way.receiver)
    sent = await run_client(
        workload,
        way.api,
        connections=way.stand.plan.ack_connections,
        seconds=seconds,
        seed=way.meter.seed(),
        client="raw",
        rate=rate,
    )
    return on_the_way(sent, await collect(way.receiver, sent.sent.keys()))


async def beside_intake(way: Way) -> None:
    """Payments come in as fast as they are taken: how fast they are worked off meanwhile, and how long each takes."""
    plan = way.stand.plan
    await forget(way.receiver)
    taken: list[ClientResult] = []

    async def intake() -> ClientResult:
        taken.append(
            await run_client(
                way.api.event(traced=True),
                way.api,
                connections=plan.event_connections,
                seconds=plan.seconds,
                seed=way.meter.seed(),
                client="raw",
            )
        )
        return taken[0]

    figure = await way.meter.measure(
        "pipeline.intake", intake(), connections=plan.event_connections, unit=EVENTS
    )
    (sent,) = taken
    found = await collect(way.receiver, sent.sent.keys())
    begin, end = min(sent.sent.values()), max(sent.sent.values())
    meanwhile = [arrival for arrival in found.first.values() if arrival.moment <= end]
    result = msgspec.structs.replace(
        on_the_way(sent, found), requests=len(meanwhile), seconds=end - begin, client="receiver"
    )
    way.meter.keep(
        "pipeline.beside", result, connections=plan.event_connections, unit=EVENTS, cpu=figure.cpu, steal=figure.steal
    )  # fmt: skip


async def recorded(way: Way) -> None:
    """Wait until everything is written down: the deliveries, and the seal of the postings. A worker has to run."""
    async with way.stand.connect(way.database) as connection:
        if not await wait_until(lambda: outbox.is_sent(connection), SETTLE_SECONDS):
            raise StandError("the deliveries were not recorded")
    await way.stand.wait_settled(way.database)


def resident(stand: Stand) -> dict[str, float]:
    """The memory of the largest process of the API and of the worker, in MB, where the system shows it."""
    found: dict[str, float] = {}
    for role, roots in stand.roles().items():
        sizes = [size for root in roots if (size := machine.largest_resident_mb(root)) is not None]
        if role in ("api", "worker") and sizes:
            found[role] = round(max(sizes), 1)
    return found
