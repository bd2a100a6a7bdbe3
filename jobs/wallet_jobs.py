"""The jobs of the wallet platform: a table, from which the worker takes its clock and `tallystick` its commands.

To add one, write a bounded step in the core and a row here, and name the command in `ops.commands.wallet_jobs` and
`ops.cli`. A step does a part of what is due, each object in a transaction of its own wherever money moves, so a job
may be killed between any two statements, and may run in any number of processes at once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from core import metrics
from core.payables import expiry, reconcile
from core.recurring import autopay, charging
from core.wallets import retention, settlement
from core.work.progress import Progress

if TYPE_CHECKING:
    from core.platform import Platform
    from core.settings import Settings

log = structlog.get_logger(__name__)

# A run ends after so many steps even if something is always due; the next run goes on.
MAX_STEPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of due work.

    `step` does a bounded part of it and tells how much; when that is nothing, nothing is due. `clock` are the minutes
    and seconds at which a worker begins, as arq's cron takes them; `timeout_seconds` ends a run, and the next one goes
    on. `poll_seconds` reads how often a worker looks beside the clock; 0: it does not.
    """

    name: str
    about: str
    step: Callable[[Platform], Awaitable[Progress]]
    clock: Mapping[str, Any]
    timeout_seconds: float = 300
    poll_seconds: Callable[[Settings], float] = lambda _: 0.0


JOBS: Final[Mapping[str, Job]] = {
    job.name: job
    for job in (
        Job(
            "autopay",
            "Pay due invoices that a mandate covers.",
            autopay.step,
            {"minute": set(range(4, 60, 5)), "second": {11}},
            poll_seconds=lambda settings: settings.invoices_autopay_poll_secs,
        ),
        Job(
            "charge",
            "Charge subscriptions whose period begins, or that could not be charged before.",
            charging.step,
            {"second": {21}},
            timeout_seconds=55,
        ),
        Job(
            "expire",
            "Mark codes, links, requests and cash requests whose time is over, and give back what was held.",
            expiry.expire,
            {"second": {5, 35}},
            timeout_seconds=25,
        ),
        Job(
            "settle",
            "Report to each merchant what was sold on the day before.",
            settlement.step,
            {"hour": {0}, "minute": set(range(6, 60, 10)), "second": {31}},
        ),
        Job(
            "retain",
            "Remove old audit records, if AUDIT_RETENTION_DAYS says so, and ended sign-ins.",
            retention.step,
            {"second": {47}},
            timeout_seconds=50,
        ),
        # It tells and changes nothing; `tallystick reconcile` is the command.
        Job(
            "reconcile",
            "Compare balances with their entries, and transfers with their legs; tell what is wrong.",
            reconcile.watch,
            {"hour": {3}, "minute": {13}, "second": {7}},
            timeout_seconds=3_600,
        ),
    )
}


async def drain(
    platform: Platform, job: Job, *, on_step: Callable[[Progress], None] = lambda _: None, once: bool = False
) -> Progress:
    """Run steps until nothing is due, or only one step; return what was done. `on_step` gets the sums so far."""
    total = Progress()
    for _ in range(1 if once else MAX_STEPS):
        started = time.perf_counter()
        try:
            done = await job.step(platform)
        except Exception:
            metrics.JOB_RUNS.add(job.name, "failed")
            raise
        if not done.any:  # an empty look is no run
            break
        metrics.JOB_RUNS.add(job.name, "failed" if done.failed else "success")
        metrics.JOB_SECONDS.observe(time.perf_counter() - started, job.name)
        total = total.and_then(done)
        on_step(total)
    if total.any:
        log.info("job.done", job=job.name, done=total.done, failed=total.failed)
    return total
