"""The group `pipeline`: signed payments that are posted and told to one receiver."""

from collections.abc import Mapping

import msgspec

from loadtests.bench.deliveries import PAYMENTS, hook, subscribe
from loadtests.bench.measures import BASE, Step, run_rounds
from loadtests.bench.meter import EVENTS, Meter
from loadtests.bench.pipeline.sizes import EventBytes, Size, bytes_per_event, sizes
from loadtests.bench.pipeline.steps import Way, at_rate, beside_intake, draining, recorded, resident
from loadtests.bench.stand import Stand

PIPELINE = "pipeline"


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the group beside its figures.

    Memory is in MB, by role: of the API after its first backlog and at the end, of the last round's worker after its
    backlog and at its end, with the events at rates in between.
    """

    bytes: EventBytes
    resident_at_start: dict[str, float]
    resident_at_end: dict[str, float]


async def pipeline(stand: Stand, meter: Meter) -> Pipeline:
    """A backlog with one worker, and events at rates; backlogs with several workers; once as many as come in."""
    await stand.create_database(PIPELINE, BASE)
    async with stand.receiver() as receiver, stand.api(PIPELINE, worker=False) as api:
        await subscribe(api, [hook(receiver, "0")], PAYMENTS)
        taken = _Taken(Way(stand, meter, PIPELINE, api, receiver))
        await taken.prepare()
        steps: list[Step] = [("pipeline.backlog", taken.one_worker)]
        steps += [_backlog_step(taken.way, workers) for workers in stand.plan.pipeline_workers]
        await run_rounds(stand, meter, steps)
    return taken.told()


class _Taken:
    """The numbers beside the figures, as they are taken round by round."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._fresh: Mapping[str, Size] = {}
        self._bytes: EventBytes | None = None
        self._api_at_start: dict[str, float] = {}
        self._at_start: dict[str, float] = {}
        self._at_end: dict[str, float] = {}

    def told(self) -> Pipeline:
        """All of it."""
        assert self._bytes is not None  # noqa: S101 - there is at least one round
        start = self._at_start | self._api_at_start
        return Pipeline(bytes=self._bytes, resident_at_start=start, resident_at_end=self._at_end)

    async def prepare(self) -> None:
        """Note the sizes of the fresh database."""
        async with self.way.stand.connect(self.way.database) as connection:
            self._fresh = await sizes(connection)

    async def one_worker(self) -> None:
        """The backlog of one worker, which then goes on with events at rates."""
        way, plan = self.way, self.way.stand.plan
        async with draining(way, "pipeline.backlog", events=plan.pipeline_events):
            await recorded(way)
            if self._bytes is None:
                async with way.stand.connect(way.database) as connection:
                    self._bytes = bytes_per_event(self._fresh, await sizes(connection), plan.pipeline_events)
                self._api_at_start = {k: size for k, size in resident(way.stand).items() if k == "api"}
            self._at_start = resident(way.stand)
            for rate in plan.pipeline_rates:
                work = at_rate(way, way.api.event(traced=True), rate, plan.seconds)
                await way.meter.measure(
                    f"pipeline@{rate}", work, connections=plan.ack_connections, unit=EVENTS
                )
            if way.meter.round == plan.rounds:
                await beside_intake(way)
            self._at_end = resident(way.stand)


def _backlog_step(way: Way, workers: int) -> Step:
    name = f"pipeline.backlog.workers{workers}"

    async def take() -> None:
        async with draining(way, name, events=way.stand.plan.pipeline_events, workers=workers):
            await recorded(way)

    return name, take
