"""The worker process: resident loops that drain due work in PostgreSQL, and the clock beside them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import structlog
import uvloop

from core import metrics, migrations, tasks
from core.database import translated
from core.inbox.dead_letters import DeadLetterStream
from core.inbox.processing import Processor, Retries, take_over_inbox_events
from core.inbox.rules import Admission
from core.metrics.loop import watch_loop
from core.outbox.breakers import Breakers
from core.outbox.callbacks import Courier
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.fanout import FanOut
from core.outbox.health import Patience
from core.outbox.ordering import Stalled
from core.outbox.recording import take_over_deliveries
from core.outbox.retention import Outworn
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender
from core.payables.cards import codes
from core.payments.notices import Notices
from core.payments.router import open_engine
from core.platform import open_platform
from core.redis import open_redis
from core.service import open_service, spare_the_collector
from core.vault import Vault
from core.work import wakeup
from core.work.leases import HEARTBEAT_SECONDS, Worker
from core.work.wakeup import Alarm
from jobs.clock import keep_clock
from jobs.listener import metrics_listener
from jobs.loops import Loop, run_loop, step_of
from jobs.table import JOBS, Job, Tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from core.payments.flow import Payments
    from core.platform import Platform
    from core.service import Service
    from core.settings import Settings

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Run a worker until SIGTERM, SIGINT or SIGHUP.

    Raises Unavailable when PostgreSQL is away at the start, and Refusal `not_migrated` when its schema is none or older
    than this program: loops would fail one by one over what is not there, while the process seems to work.
    """
    uvloop.run(_main(settings))


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Under nohup the worker stays when its terminal goes.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stopping.set)
    with translated():
        refusal = await migrations.lacking(str(settings.database_url))
    if refusal is not None:
        raise refusal
    await work(settings, stopping, on_started=spare_the_collector)


async def work(
    settings: Settings,
    stopping: asyncio.Event,
    *,
    retries: Retries | None = None,
    on_started: Callable[[], None] = lambda: None,
) -> None:
    """Do a worker's work until `stopping` is set; then finish the work in hand, within SHUTDOWN_TIMEOUT_SECS."""
    async with (
        open_service(settings) as service,
        open_platform(service) as platform,
        open_engine(service, platform.waker, {codes.SURFACE: codes.CardMoney(platform)}) as payments,
    ):
        worker = Worker()
        await worker.beat(service.database)
        egress = Egress(Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod"))
        # Messages have a connection of their own: it waits for them, while the service's never waits long.
        listening = open_redis(settings)
        alarm = Alarm(listening, service.epoch)
        try:
            shift = _Shift(
                service, platform, payments, worker, egress, alarm, retries or Retries.of(settings)
            )
            async with metrics_listener(service):
                on_started()
                await shift.run(stopping)
        finally:
            await egress.close()
            await listening.aclose()


class _Shift:
    """One worker's time between its start and its stop."""

    def __init__(
        self,
        service: Service,
        platform: Platform,
        payments: Payments,
        worker: Worker,
        egress: Egress,
        alarm: Alarm,
        retries: Retries,
    ) -> None:
        self._settings = service.settings
        self._database = service.database
        self._worker = worker
        self._alarm = alarm
        self._waker = platform.waker
        self._waker.alarm = alarm
        self._retries = retries
        on_stream = service.settings.dlq_backend == "redis"
        self._stream = DeadLetterStream(service.redis, service.epoch) if on_stream else None
        self._schedule = Schedule.of(service.settings)
        self._courier = Courier.of(service.settings)
        self._breakers = Breakers(service.settings.webhook_breaker_open_secs)
        self._sender = Sender(
            service.database,
            egress,
            worker,
            self._schedule,
            breakers=self._breakers,
            patience=Patience.of(service.settings),
            vault=Vault.of(service.settings),
            courier=self._courier,
            on_free=lambda: alarm.ring([wakeup.DELIVERIES]),
            on_event=lambda: self._wake(wakeup.OUTBOX),
        )
        self._processor = Processor(
            service.database,
            service.ledger,
            worker,
            wake=self._wake,
            retries=retries,
            admission=Admission.of(service.settings),
            stream=self._stream,
            engine=Notices(payments),
            sender=self._sender,
        )
        self._tools = Tools(
            platform,
            self._wake,
            process=self._processor.start,
            fan_out=FanOut(service.database, self._sender, on_due=lambda: self._wake(wakeup.DELIVERIES)).step,
            deliver=self._sender.step,
            release_stalled=Stalled(service.database).step,
            prune_outbox=Outworn(service.database, service.settings).step,
            payments=payments if payments.providers else None,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Start everything, wait for the stop, and end in an order that loses nothing."""
        self._begin_metrics()
        # The heart beats until all leases are given back, or others would take over work that is being finished.
        retired = asyncio.Event()
        helpers = [
            asyncio.create_task(self._alarm.listen(), name="listen"),
            asyncio.create_task(run_loop(self._heart(), self._alarm, retired), name="heart"),
            asyncio.create_task(keep_clock(self._tools), name="clock"),
            asyncio.create_task(watch_loop(), name="lag"),
        ]
        loops = [
            asyncio.create_task(run_loop(loop, self._alarm, stopping), name=loop.name)
            for loop in self._loops()
        ]
        log.info("worker.started", worker=self._worker.name, worker_id=str(self._worker.id))
        stop = asyncio.create_task(stopping.wait(), name="stop")
        ended, _ = await asyncio.wait([stop, *helpers, *loops], return_when=asyncio.FIRST_COMPLETED)
        asked = stopping.is_set()
        stopping.set()
        await self._finish(loops)
        retired.set()
        await tasks.end(stop, *helpers)
        log.info("worker.stopped", worker=self._worker.name)
        if not asked:
            # A task that ends by itself is a mistake of ours, and the supervisor starts a new process.
            task = ended.pop()
            task.result()
            raise RuntimeError(f"the task {task.get_name()} ended by itself")

    def _tell(self) -> None:
        """Set the gauges that only this worker knows."""
        open_, trial = self._breakers.left_alone()
        metrics.BREAKERS.labels("open").set(len(open_))
        metrics.BREAKERS.labels("trial").set(len(trial))

    def _begin_metrics(self) -> None:
        """Show every job of this worker before its first run."""
        self._tell()
        intervals = {
            job.name: job.interval_seconds(self._settings)
            for job in JOBS.values()
            if job.wanted(self._settings)
        }
        for name, seconds in {"heart": HEARTBEAT_SECONDS, **intervals}.items():
            if seconds:
                metrics.begin_job(name)
                metrics.JOB_INTERVAL.labels(name).set(seconds)
                metrics.JOB_LAST_SUCCESS.labels(name).set_to_current_time()

    async def _finish(self, loops: Sequence[asyncio.Task[None]]) -> None:
        grace = self._settings.shutdown_timeout_secs
        self._alarm.ring()
        _, late = await asyncio.wait(loops, timeout=grace)
        await tasks.end(*late)
        with contextlib.suppress(Exception):
            await self._processor.drain(grace)
        # If PostgreSQL is gone, the others find our leases later: this worker's heart stops now.
        with contextlib.suppress(Exception):
            await self._sender.drain(grace)
            await self._worker.retire(self._database)
        # The last answers may switch endpoints off, and others have to hear of the events that tell so.
        await self._waker.close()

    def _loops(self) -> list[Loop]:
        return [
            Loop(job.name, job.topic, seconds, self._step(job), job.full)
            for job in JOBS.values()
            if (seconds := job.poll_seconds(self._settings)) and job.wanted(self._settings)
        ]

    def _step(self, job: Job) -> Callable[[], Awaitable[int]]:
        async def step() -> int:
            progress = await step_of(self._tools, job)
            return progress.done + progress.failed

        return step

    def _heart(self) -> Loop:
        async def beat() -> int:
            await self._worker.beat(self._database)
            self._tell()
            if taken := await take_over_inbox_events(self._database, self._retries, self._stream):
                log.warning("worker.took_over", events=taken)
                self._wake(wakeup.INBOX)
            if taken := await take_over_deliveries(self._database, self._schedule, self._courier):
                log.warning("worker.took_over", deliveries=taken)
                self._wake(wakeup.DELIVERIES)
            return 0

        return Loop("heart", None, HEARTBEAT_SECONDS, beat)

    def _wake(self, topic: str) -> None:
        """Wake this process at once, whatever Redis does, and the others through it."""
        self._waker.wake(topic)
