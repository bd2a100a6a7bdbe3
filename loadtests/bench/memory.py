"""The API process's resident memory over a long run under load."""

import asyncio
import contextlib
import time

import msgspec

from loadtests.bench import machine
from loadtests.bench.figures import slope_per_second
from loadtests.bench.measures import BASE, THROUGHPUT
from loadtests.bench.meter import Meter
from loadtests.bench.stand import Stand

#: Growth is stated over this time, whatever the length of the run.
GROWTH_SECONDS = 600


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of the API's largest process. `samples` are (second, MB) pairs; growth leaves out the warm-up."""

    seconds: float
    largest_mb: float
    growth_mb: float
    samples: list[tuple[float, float]]


async def memory(stand: Stand, meter: Meter) -> Memory | None:
    """Loads the API for the plan's time and reads its memory meanwhile; None where the system does not show it."""
    plan = stand.plan
    await stand.create_database(THROUGHPUT, BASE)
    connections = min(plan.connections)
    async with stand.api(THROUGHPUT) as api:
        (root,) = stand.roles()["api"]
        samples: list[tuple[float, float]] = []
        sampler = asyncio.create_task(_sample(root, plan.memory_sample_seconds, samples))
        try:
            await meter.http(
                f"memory.single@{connections}",
                api.single(),
                api,
                connections=connections,
                seconds=plan.memory_seconds,
            )
        finally:
            sampler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampler
    return summarise(samples, plan.memory_warm_share) if samples else None


async def _sample(root: int, every_seconds: float, samples: list[tuple[float, float]]) -> None:
    started = time.monotonic()
    while True:
        resident = machine.largest_resident_mb(root)
        if resident is not None:
            samples.append((round(time.monotonic() - started, 2), round(resident, 2)))
        await asyncio.sleep(every_seconds)


def summarise(samples: list[tuple[float, float]], warm_share: float) -> Memory:
    """The largest size, and the growth in ten minutes after the first part of the run. Needs at least one sample."""
    last = samples[-1][0]
    steady = [sample for sample in samples if sample[0] >= last * warm_share]
    return Memory(
        seconds=last,
        largest_mb=max(size for _, size in samples),
        growth_mb=round(slope_per_second(steady) * GROWTH_SECONDS, 2),
        samples=samples,
    )
