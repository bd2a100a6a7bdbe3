"""Runs of a job: by a resident loop, which drains it, sleeps until it is woken or polls, and repeats; or once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core import metrics, tracing
from core.errors import Refusal
from core.work.progress import Progress
from core.work.retries import full_jitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.work.wakeup import Alarm
    from jobs.table import Job, Tools

log = structlog.get_logger(__name__)

# While PostgreSQL is away every loop tries again after so many seconds at most.
MAX_PAUSE_SECONDS: Final = 2.0
# A run ends after so many steps even if work is always due; the next run goes on.
MAX_STEPS: Final = 10_000


class Loop(NamedTuple):
    """One kind of work. `step` does a bounded part and returns how much that was; less than `full` leaves nothing due.

    `topic` wakes the loop, None if it only goes by the clock; `poll_seconds` is the delay that a lost wake-up costs.
    """

    name: str
    topic: str | None
    poll_seconds: float
    step: Callable[[], Awaitable[int]]
    full: int = 1


async def run_loop(loop: Loop, alarm: Alarm, stopping: asyncio.Event) -> None:
    """Run until `stopping` is set, between two steps. A step that fails is tried again after a pause."""
    failures = 0
    while not stopping.is_set():
        started = time.perf_counter()
        try:
            done = await loop.step()
        except Refusal as refusal:
            # A server that is away for all loops is worth one line a loop and not one a try.
            failures += 1
            if failures == 1:
                log.warning("loop.waits", loop=loop.name, code=refusal.code, detail=refusal.detail)
            done = -1
        except Exception:
            failures += 1
            log.exception("loop.failed", loop=loop.name, failures=failures)
            done = -1
        if done:  # an empty look is no run
            metrics.JOB_RUNS.add(loop.name, "failed" if done < 0 else "success")
            seconds = time.perf_counter() - started
            metrics.JOB_SECONDS.observe(seconds, loop.name)
            if tracing.active is not None:
                tracing.active.ran(loop.name, seconds, failed=done < 0)
        if done >= 0:
            metrics.JOB_LAST_SUCCESS.labels(loop.name).set_to_current_time()
        if done < 0:
            pause = full_jitter(failures, base_seconds=0.1, cap_seconds=MAX_PAUSE_SECONDS)
            await _sleep(pause, stopping)
            continue
        if failures:
            log.info("loop.goes_on", loop=loop.name, failures=failures)
            failures = 0
        if done < loop.full:
            await _rest(loop, alarm, stopping)


async def _rest(loop: Loop, alarm: Alarm, stopping: asyncio.Event) -> None:
    if loop.topic is None:
        await _sleep(loop.poll_seconds, stopping)
    else:
        await alarm.wait(loop.topic, loop.poll_seconds)


async def _sleep(seconds: float, stopping: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


async def step_of(tools: Tools, job: Job) -> Progress:
    """Do one step of a job; return how much it did."""
    done = await job.step(tools)
    return done if isinstance(done, Progress) else Progress(done)


async def drain(
    tools: Tools, job: Job, *, on_step: Callable[[Progress], None] = lambda _: None, once: bool = False
) -> Progress:
    """Run steps until nothing is due, or only one step; return the sums. `on_step` gets the sums so far."""
    total = Progress()
    for _ in range(1 if once else MAX_STEPS):
        started = time.perf_counter()
        try:
            done = await step_of(tools, job)
        except Exception:
            metrics.JOB_RUNS.add(job.name, "failed")
            raise
        if not done.any:  # an empty look is no run
            break
        metrics.JOB_RUNS.add(job.name, "failed" if done.failed else "success")
        metrics.JOB_SECONDS.observe(time.perf_counter() - started, job.name)
        total = total.and_then(done)
        on_step(total)
    if not total.failed:
        metrics.JOB_LAST_SUCCESS.labels(job.name).set_to_current_time()
    if total.any:
        log.info("job.done", job=job.name, done=total.done, failed=total.failed)
    return total
