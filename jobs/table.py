"""The table of all jobs: loops, arq's clock, commands and the names in metrics are read from it.

To add a job, write a bounded step in the core and a row here; a command is also named in `ops.commands.wallet_jobs` and
`ops.cli`. A step does a part of what is due, each object in a transaction of its own wherever money moves, so a job may
be killed between any two statements, and may run in any number of processes at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from core.access.internal_hmac import FORGET_SECONDS, forget_signatures
from core.inbox import replays
from core.inbox.processing import BATCH as INBOX_BATCH
from core.inbox.retention import prune_events
from core.ledger.holds import expire_due
from core.ledger.sealing import ROUND_BATCHES, seal_once
from core.outbox.fanout import BATCH
from core.partitions import archiving, gauges, keeping
from core.payables import expiry, reconcile
from core.payments import reconciling
from core.recurring import autopay, charging
from core.wallets import retention, settlement
from core.work import wakeup
from core.work.progress import Progress
from core.work.traces import prune_traces
from jobs.backfill import askable, backfill
from jobs.sweep import sweep

if TYPE_CHECKING:
    from core.database import Database
    from core.payments.flow import Payments
    from core.platform import Platform
    from core.settings import Settings

log = structlog.get_logger(__name__)

# A lost wake-up costs at most this.
POLL_SECONDS: Final = 1.0
# The delay of an object's next delivery when a worker dies before it lets that go.
STALLED_SECONDS: Final = 5.0
# Old rows are removed so often that each time is short.
PRUNE_SECONDS: Final = 60.0
# A step never does so much, so its loop always waits for the next poll.
PACED: Final = 1_000_000


# Seconds over which arq's units recur, the longest first; a job of hours begins once in its hour, or again and again.
_SPANS: Final = {"hour": 86_400.0, "minute": 3_600.0, "second": 60.0}


async def _nothing() -> int:
    return 0


def _nobody(_topic: str) -> None:
    return


@dataclass(frozen=True, slots=True)
class Tools:
    """The objects that steps work with. A command has the platform alone; a worker adds its claims and its wake-ups.

    `payments` is there where providers are configured.
    """

    platform: Platform
    wake: Callable[[str], None] = _nobody
    process: Callable[[], Awaitable[int]] = _nothing
    fan_out: Callable[[], Awaitable[int]] = _nothing
    deliver: Callable[[], Awaitable[int]] = _nothing
    release_stalled: Callable[[], Awaitable[int]] = _nothing
    prune_outbox: Callable[[], Awaitable[int]] = _nothing
    payments: Payments | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        return self.platform.settings

    @property
    def database(self) -> Database:
        """Return the database."""
        return self.platform.database


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of due work.

    `step` does a bounded part and returns how much that was; less than `full` leaves nothing that is due. A worker
    looks when `topic` is woken and every `poll_seconds` at the latest; 0: it has no loop for the job. `clock` is the
    time at which arq begins a run, in arq's words; empty: never. `timeout_seconds` ends such a run, and the next one
    goes on.
    `wanted` tells whether the settings ask for the job at all. A `command` is a subcommand of `tallystick`, too.
    """

    name: str
    about: str
    step: Callable[[Tools], Awaitable[int | Progress]]
    topic: str | None = None
    poll_seconds: Callable[[Settings], float] = lambda _: 0.0
    full: int = 1
    clock: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 300
    wanted: Callable[[Settings], object] = lambda _: True
    command: bool = False

    def interval_seconds(self, settings: Settings) -> float:
        """Return the longest time between two runs that is planned."""
        of_clock = [day / len(self.clock[unit]) for unit, day in _SPANS.items() if unit in self.clock]
        polled = self.poll_seconds(settings)
        return min([*of_clock[:1], *([polled] if polled else [])], default=0.0)


def _outbox_poll(settings: Settings) -> float:
    return settings.webhook_process_interval_secs or POLL_SECONDS


async def _replay(tools: Tools) -> int:
    letters = await replays.step(tools.database)
    if letters:
        tools.wake(wakeup.INBOX)
    return letters


async def _reconcile_payments(tools: Tools) -> Progress:
    return (
        Progress()
        if tools.payments is None
        else await reconciling.reconcile(tools.payments, patience=POLL_SECONDS)
    )


async def _expire_payments(tools: Tools) -> Progress:
    if tools.payments is None:
        return Progress()
    return await reconciling.expire(tools.payments, batch=tools.settings.payments_job_batch_size)


async def _make_partitions(tools: Tools) -> int:
    # A table whose next partition cannot be made is measured all the same, else the alarm would see the old figure.
    await gauges.measure(tools.database)
    made = await keeping.make_ahead(tools.database, tools.settings)
    if made:
        await gauges.measure(tools.database)
    return made


async def _archive(tools: Tools) -> Progress:
    return await archiving.step(tools.database, tools.settings, tools.platform.service.epoch)


async def _release_stalled(tools: Tools) -> int:
    released = await tools.release_stalled()
    if released:
        log.warning("deliveries.were_stalled", deliveries=released)
        tools.wake(wakeup.DELIVERIES)
    return released


JOBS: Final[Mapping[str, Job]] = {
    job.name: job
    for job in (
        Job(
            "inbox", "Apply events that came in.", lambda tools: tools.process(),
            topic=wakeup.INBOX, poll_seconds=lambda _: POLL_SECONDS, full=INBOX_BATCH,
        ),
        Job("replays", "Make replayed dead letters due.", _replay, poll_seconds=lambda _: POLL_SECONDS),
        Job(
            "fan_out", "Make a delivery of each event for each endpoint that asked for it.",
            lambda tools: tools.fan_out(), topic=wakeup.OUTBOX, poll_seconds=_outbox_poll, full=BATCH,
        ),
        Job(
            "deliveries", "Send due deliveries to their receivers.", lambda tools: tools.deliver(),
            topic=wakeup.DELIVERIES,
            poll_seconds=lambda settings: settings.webhook_worker_poll_secs or _outbox_poll(settings),
        ),
        Job(
            "stalled", "Let go of deliveries that wait for one that is done.", _release_stalled,
            poll_seconds=lambda _: STALLED_SECONDS,
        ),
        Job(
            "prune_outbox", "Remove old attempts, deliveries and events.", lambda tools: tools.prune_outbox(),
            poll_seconds=lambda _: PRUNE_SECONDS,
        ),
        Job(
            "prune_inbox", "Remove old events of providers that are finished.",
            lambda tools: prune_events(tools.database, tools.settings.inbox_retention_days),
            poll_seconds=lambda _: PRUNE_SECONDS,
        ),
        Job(
            "prune_traces", "Remove old traces of events, while traces are made.",
            lambda tools: prune_traces(tools.database), poll_seconds=lambda _: PRUNE_SECONDS,
            wanted=lambda settings: settings.otel_exporter_otlp_endpoint,
        ),
        Job(
            "partitions", "Make the next partitions of attempts and of the audit, and measure them.",
            _make_partitions, poll_seconds=lambda _: PRUNE_SECONDS,
        ),
        # At night, an hour before balances are compared; a run that is cut off leaves one partition for the next.
        Job(
            "archive", "Archive partitions of which every row is old, and drop them.", _archive,
            clock={"hour": {2}, "minute": {13}, "second": {43}}, timeout_seconds=7_200,
        ),
        Job(
            "seal", "Number and seal committed transfers.", lambda tools: seal_once(tools.database),
            poll_seconds=lambda settings: settings.seal_interval_ms / 1000, full=ROUND_BATCHES,
        ),
        Job(
            "forget_signatures", "Forget signatures of /internal that are too old to be replayed.",
            lambda tools: forget_signatures(tools.database), poll_seconds=lambda _: FORGET_SECONDS,
        ),
        Job(
            "expire_holds", "Release holds whose time is over.", lambda tools: expire_due(tools.database),
            poll_seconds=lambda settings: settings.hold_expiry_interval_ms / 1000,
        ),
        Job(
            "sweep", "Wake every loop, and measure how much waits.",
            lambda tools: sweep(tools.database, tools.platform.waker),
            clock={"second": set(range(0, 60, 10))}, timeout_seconds=9,
        ),
        # Once an hour, away from the full hour, when all others ask.
        Job(
            "backfill", "Ask providers for events that they could not deliver.",
            lambda tools: backfill(tools.settings, tools.database, tools.platform.waker),
            clock={"minute": {23}, "second": {17}}, timeout_seconds=1_800, wanted=askable,
        ),
        Job(
            "autopay", "Pay due invoices that a mandate covers.", lambda tools: autopay.step(tools.platform),
            poll_seconds=lambda settings: settings.invoices_autopay_poll_secs,
            clock={"minute": set(range(4, 60, 5)), "second": {11}}, command=True,
        ),
        Job(
            "charge", "Charge subscriptions whose period begins, or that could not be charged before.",
            lambda tools: charging.step(tools.platform), clock={"second": {21}}, timeout_seconds=55, command=True,
        ),
        Job(
            "expire", "Expire codes, links, requests and cash requests whose time is over; give back their holds.",
            lambda tools: expiry.expire(tools.platform), clock={"second": {5, 35}}, timeout_seconds=25, command=True,
        ),
        Job(
            "settle", "Report to each merchant the sales of the day before.",
            lambda tools: settlement.step(tools.platform),
            clock={"hour": {0}, "minute": set(range(6, 60, 10)), "second": {31}}, command=True,
        ),
        Job(
            "retain", "Remove old audit records, if AUDIT_RETENTION_DAYS says so, and ended sign-ins.",
            lambda tools: retention.step(tools.platform), clock={"second": {47}}, timeout_seconds=50, command=True,
        ),
        # The pause between two steps is a part of each provider's budget, so that no step begins at once.
        Job(
            "reconcile_payments", "Ask providers how open payments stand, and to close those that are given up.",
            _reconcile_payments, poll_seconds=lambda _: POLL_SECONDS, full=PACED,
        ),
        Job(
            "expire_payments", "Give payments up whose time is over; their providers are asked then.",
            _expire_payments, poll_seconds=lambda _: POLL_SECONDS, full=PACED,
        ),
        # The job tells and changes nothing; `tallystick reconcile`, which may change balances, is no run of it.
        Job(
            "reconcile", "Compare balances with their entries, and transfers with their legs; tell the faults.",
            lambda tools: reconcile.watch(tools.platform),
            clock={"hour": {3}, "minute": {13}, "second": {7}}, timeout_seconds=3_600,
        ),
    )
}  # fmt: skip
