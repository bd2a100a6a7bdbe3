"""The worker process: resident loops that drain what is due in PostgreSQL, and arq as the clock beside them.

arq never holds the truth: it enqueues nothing that PostgreSQL does not know. When Redis is gone the loops go on by
polling, and arq is started again until Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
import uvloop
from arq import cron
from arq.connections import ArqRedis
from arq.cron import CronJob
from arq.worker import Worker as ArqWorker
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from core import tasks
from core.access.internal_hmac import FORGET_SECONDS, forget_signatures
from core.inbox import replays
from core.inbox.dead_letters import DeadLetterStream
from core.inbox.processing import Processor, Retries, take_over_inbox_events
from core.ledger.holds import expire_due
from core.ledger.sealing import seal_once
from core.outbox.breakers import Breakers
from core.outbox.destinations import Destinations
from core.outbox.egress import Egress
from core.outbox.fanout import fan_out
from core.outbox.health import Patience
from core.outbox.ordering import Stalled
from core.outbox.schedule import Schedule
from core.outbox.sender import Sender, prune_attempts, take_over_deliveries
from core.platform import open_platform
from core.redis import open_redis
from core.service import open_service
from core.work import wakeup
from core.work.leases import HEARTBEAT_SECONDS, Worker
from core.work.wakeup import Alarm, Waker
from jobs import backfill
from jobs.listener import metrics_listener
from jobs.loops import Loop, run_loop
from jobs.sweep import sweep
from jobs.wallet_jobs import JOBS, Job, drain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.platform import Platform
    from core.service import Service
    from core.settings import Settings

log = structlog.get_logger(__name__)

# A lost wake-up costs at most this.
POLL_SECONDS: Final = 1.0
# How late the next delivery of an object can be when a worker dies before it lets it go.
STALLED_SECONDS: Final = 5.0
# How often old rows are removed: often enough that each time is short.
PRUNE_SECONDS: Final = 60.0
# The sweep's seconds of the minute, and how long one may take.
SWEEP_SECONDS: Final = frozenset(range(0, 60, 10))
SWEEP_TIMEOUT_SECONDS: Final = 9
# When providers are asked for what they could not deliver: once an hour, away from the full hour, when all others ask.
BACKFILL_MINUTES: Final = frozenset({23})
BACKFILL_SECONDS: Final = frozenset({17})
BACKFILL_TIMEOUT_SECONDS: Final = 1800
# A Redis that restarts is back within these; after that arq gives up and is started anew.
REDIS_RETRIES: Final = 20
ARQ_RESTART_SECONDS: Final = 2.0


def run(settings: Settings) -> None:
    """Run a worker until SIGTERM, SIGINT or SIGHUP. Raises Unavailable when PostgreSQL is away at the start."""
    uvloop.run(_main(settings))


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Under nohup it stays when its terminal goes.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stopping.set)
    await work(settings, stopping)


async def work(settings: Settings, stopping: asyncio.Event, *, retries: Retries | None = None) -> None:
    """Do a worker's work until `stopping` is set; then finish what is in hand, within SHUTDOWN_TIMEOUT_SECS."""
    async with open_service(settings) as service, open_platform(service) as platform:
        worker = Worker()
        await worker.beat(service.database)
        egress = Egress(Destinations.of(settings.outbound_allow_hosts, require_https=settings.env == "prod"))
        # A connection of its own: this one waits for messages, the service's never waits long.
        listening = open_redis(settings)
        alarm = Alarm(listening, service.epoch)
        try:
            async with metrics_listener(service):
                shift = _Shift(service, platform, worker, egress, alarm, retries or Retries.of(settings))
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
        worker: Worker,
        egress: Egress,
        alarm: Alarm,
        retries: Retries,
    ) -> None:
        self._platform = platform
        self._settings = service.settings
        self._database = service.database
        self._epoch = service.epoch
        self._worker = worker
        self._alarm = alarm
        self._waker = Waker(service.redis, service.epoch)
        self._retries = retries
        on_stream = service.settings.dlq_backend == "redis"
        self._stream = DeadLetterStream(service.redis, service.epoch) if on_stream else None
        self._schedule = Schedule.of(service.settings)
        self._processor = Processor(
            service.database,
            service.ledger,
            worker,
            wake=self._wake,
            retries=retries,
            stream=self._stream,
        )
        self._stalled = Stalled(service.database)
        self._sender = Sender(
            service.database,
            egress,
            worker,
            self._schedule,
            breakers=Breakers(service.settings.webhook_breaker_open_secs),
            patience=Patience.of(service.settings),
            on_free=lambda: alarm.ring([wakeup.DELIVERIES]),
            on_event=lambda: self._wake(wakeup.OUTBOX),
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Start everything, wait for the stop, and end in an order that loses nothing."""
        # The heart beats until all is given back, or others would take over what is being finished.
        retired = asyncio.Event()
        helpers = [
            asyncio.create_task(self._alarm.listen(), name="listen"),
            asyncio.create_task(run_loop(self._heart(), self._alarm, retired), name="heart"),
            asyncio.create_task(self._clock(), name="clock"),
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
            # None of them ends by itself: it is a mistake of ours, and the supervisor starts a new process.
            task = ended.pop()
            task.result()
            raise RuntimeError(f"the task {task.get_name()} ended by itself")

    async def _finish(self, loops: Sequence[asyncio.Task[None]]) -> None:
        grace = self._settings.shutdown_timeout_secs
        self._alarm.ring()
        _, late = await asyncio.wait(loops, timeout=grace)
        await tasks.end(*late)
        await self._waker.close()
        # If PostgreSQL is gone, the others find what we held: this worker's heart stops now.
        with contextlib.suppress(Exception):
            await self._sender.drain(grace)
            await self._processor.release()
            await self._worker.retire(self._database)

    def _loops(self) -> list[Loop]:
        settings, database = self._settings, self._database
        outbox_poll = settings.webhook_process_interval_secs or POLL_SECONDS
        return [
            Loop("inbox", wakeup.INBOX, POLL_SECONDS, self._processor.step),
            Loop("replays", None, POLL_SECONDS, self._replay),
            Loop("fan_out", wakeup.OUTBOX, outbox_poll, self._fan_out),
            Loop(
                "deliveries",
                wakeup.DELIVERIES,
                settings.webhook_worker_poll_secs or outbox_poll,
                self._sender.step,
            ),
            Loop("stalled", None, STALLED_SECONDS, self._release_stalled),
            Loop(
                "prune_attempts",
                None,
                PRUNE_SECONDS,
                lambda: prune_attempts(database, settings.webhook_attempts_days),
            ),
            Loop("seal", None, settings.seal_interval_ms / 1000, lambda: seal_once(database)),
            Loop("forget_signatures", None, FORGET_SECONDS, lambda: forget_signatures(database)),
            Loop("expire_holds", None, settings.hold_expiry_interval_ms / 1000, lambda: expire_due(database)),
            *(
                Loop(job.name, None, seconds, functools.partial(self._wallet_step, job))
                for job in JOBS.values()
                if (seconds := job.poll_seconds(settings))
            ),
        ]

    def _heart(self) -> Loop:
        async def beat() -> int:
            await self._worker.beat(self._database)
            if taken := await take_over_inbox_events(self._database, self._retries, self._stream):
                log.warning("worker.took_over", events=taken)
                self._wake(wakeup.INBOX)
            if taken := await take_over_deliveries(self._database, self._schedule):
                log.warning("worker.took_over", deliveries=taken)
                self._wake(wakeup.DELIVERIES)
            return 0

        return Loop("heart", None, HEARTBEAT_SECONDS, beat)

    async def _replay(self) -> int:
        letters = await replays.step(self._database)
        if letters:
            self._wake(wakeup.INBOX)
        return letters

    async def _fan_out(self) -> int:
        events = await fan_out(self._database)
        if events:
            log.info("fan_out.batch", events=events)
            self._wake(wakeup.DELIVERIES)
        return events

    async def _wallet_step(self, job: Job) -> int:
        progress = await job.step(self._platform)
        return progress.done + progress.failed

    async def _release_stalled(self) -> int:
        released = await self._stalled.step()
        if released:
            log.warning("deliveries.were_stalled", deliveries=released)
            self._wake(wakeup.DELIVERIES)
        return released

    def _wake(self, topic: str) -> None:
        """Wake this process at once, whatever Redis does, and the others through it."""
        self._alarm.ring([topic])
        self._waker.wake(topic)

    async def _clock(self) -> None:
        """Keep arq running until cancelled."""
        while True:
            redis = open_arq_redis(self._settings)
            arq = self._arq(redis)
            try:
                await arq.async_run()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("clock.lost", error=type(error).__name__)
            finally:
                # Not arq's own close(): it raises when Redis is away, and leaves its connections open then.
                await tasks.end(*arq.tasks.values())
                await redis.aclose(close_connection_pool=True)
            await asyncio.sleep(ARQ_RESTART_SECONDS)

    def _arq(self, redis: ArqRedis) -> ArqWorker:
        async def run_sweep(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001 - what arq calls
            await sweep(self._database, self._waker)

        async def run_backfill(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001 - what arq calls
            await backfill.backfill(self._settings, self._database, self._waker)

        # arq's keys have a prefix of their own; the epoch in the names keeps deployments that share a Redis apart.
        # No job is tried again: the next one comes in any case.
        jobs = [
            cron(
                run_sweep,
                name=f"ts:{self._epoch}:sweep",
                second=set(SWEEP_SECONDS),
                timeout=SWEEP_TIMEOUT_SECONDS,
                keep_result=0,
                max_tries=1,
            )
        ]
        if backfill.askable(self._settings):
            jobs.append(
                cron(
                    run_backfill,
                    name=f"ts:{self._epoch}:backfill",
                    minute=set(BACKFILL_MINUTES),
                    second=set(BACKFILL_SECONDS),
                    timeout=BACKFILL_TIMEOUT_SECONDS,
                    keep_result=0,
                    max_tries=1,
                )
            )
        return ArqWorker(
            cron_jobs=[*jobs, *map(self._wallet_cron, JOBS.values())],
            queue_name=f"ts:{self._epoch}:jobs",
            redis_pool=redis,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
            handle_signals=False,
            keep_result=0,
            health_check_interval=30,
        )

    def _wallet_cron(self, job: Job) -> CronJob:
        async def run_job(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001 - what arq calls
            await drain(self._platform, job)

        return cron(
            run_job,
            name=f"ts:{self._epoch}:{job.name}",
            timeout=job.timeout_seconds,
            keep_result=0,
            max_tries=1,
            **job.clock,
        )


def open_arq_redis(settings: Settings) -> ArqRedis:
    """Return arq's client. It survives a restart of Redis, which arq's own default does not."""
    client: ArqRedis = ArqRedis.from_url(
        str(settings.redis_url),
        socket_timeout=5.0,
        socket_connect_timeout=1.0,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), REDIS_RETRIES),
        retry_on_error=[RedisConnectionError, BusyLoadingError, OSError, TimeoutError],
        retry_on_timeout=True,
    )
    client.job_serializer = orjson.dumps
    client.job_deserializer = orjson.loads
    return client
