"""The group `pipeline`: signed payments that are posted and told to one receiver."""

import msgspec

from loadtests.bench.deliveries import PAYMENTS, hook, subscribe
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import EVENTS, Meter
from loadtests.bench.pipeline.sizes import EventBytes, bytes_per_event, sizes
from loadtests.bench.pipeline.steps import Way, at_rate, beside_intake, draining, recorded, resident
from loadtests.bench.stand import Stand

PIPELINE = "pipeline"


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """What the group tells beside its figures. Memory is in MB, of API and worker, after the warm-up and at the end."""

    bytes: EventBytes
    resident_at_start: dict[str, float]
    resident_at_end: dict[str, float]


async def pipeline(stand: Stand, meter: Meter) -> Pipeline:
    """A backlog with one worker and with several; then events at rates; then as many as come in."""
    plan = stand.plan
    await stand.create_database(PIPELINE, BASE)
    async with stand.receiver() as receiver, stand.api(PIPELINE, worker=False) as api:
        await subscribe(api, [hook(receiver, "0")], PAYMENTS)
        way = Way(stand, meter, PIPELINE, api, receiver)
        written = await _bytes_of_backlog(way)
        await run_rounds(stand, meter, [_backlog_step(way, workers) for workers in plan.pipeline_workers])
        with stand.workers(PIPELINE):
            await at_rate(way, api.event(traced=True), min(plan.pipeline_rates), plan.warm_seconds)
            at_start = resident(stand)
            await run_rounds(stand, meter, [_rate_step(way, rate) for rate in plan.pipeline_rates])
            await beside_intake(way)
            at_end = resident(stand)
    return Pipeline(bytes=written, resident_at_start=at_start, resident_at_end=at_end)


async def _bytes_of_backlog(way: Way) -> EventBytes:
    """The first events of a fresh database, all the way: what they leave behind. They warm everything up, too."""
    events = way.stand.plan.pipeline_events
    async with way.stand.connect(way.database) as connection:
        before = await sizes(connection)
        async with draining(way, None, events=events):
            await recorded(way)
        return bytes_per_event(before, await sizes(connection), events)


def _backlog_step(way: Way, workers: int) -> Step:
    name = backlog_name(workers)

    async def take() -> None:
        async with draining(way, name, events=way.stand.plan.pipeline_events, workers=workers):
            await recorded(way)

    return name, take


def backlog_name(workers: int) -> str:
    """The name of the figure with so many workers."""
    return "pipeline.backlog" if workers == 1 else f"pipeline.backlog.workers{workers}"


def _rate_step(way: Way, rate: int) -> Step:
    name = f"pipeline@{rate}"

    async def take() -> None:
        work = at_rate(way, way.api.event(traced=True), rate, way.stand.plan.seconds)
        await way.meter.measure(name, work, connections=way.stand.plan.ack_connections, unit=EVENTS)

    return name, take
