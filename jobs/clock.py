"""arq as the clock: it begins runs of jobs at their times, on one of the workers.

arq never holds the truth: it enqueues nothing that PostgreSQL does not know. When Redis is gone the loops go on by
polling, and arq is started again until Redis is back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker as ArqWorker
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from core import tasks, tracing
from jobs.loops import drain
from jobs.table import JOBS

if TYPE_CHECKING:
    from arq.cron import CronJob

    from core.settings import Settings
    from jobs.table import Job, Tools

log = structlog.get_logger(__name__)

# A Redis that restarts is back within so many retries; after them arq gives up and is started anew.
REDIS_RETRIES: Final = 20
ARQ_RESTART_SECONDS: Final = 2.0


async def keep_clock(tools: Tools) -> None:
    """Keep arq running until cancelled."""
    while True:
        redis = open_arq_redis(tools.settings)
        arq = _arq(redis, tools)
        try:
            await arq.async_run()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("clock.lost", error=type(error).__name__)
        finally:
            # arq's own close() would raise when Redis is away, and leave its connections open then.
            await tasks.end(*arq.tasks.values())
            await redis.aclose(close_connection_pool=True)
        await asyncio.sleep(ARQ_RESTART_SECONDS)


def _arq(redis: ArqRedis, tools: Tools) -> ArqWorker:
    # arq's keys have a prefix of their own; the epoch in the names keeps deployments that share a Redis apart.
    prefix = f"ts:{tools.platform.service.epoch}"
    return ArqWorker(
        cron_jobs=[
            _cron(job, tools, f"{prefix}:{job.name}")
            for job in JOBS.values()
            if job.clock and job.wanted(tools.settings)
        ],
        queue_name=f"{prefix}:jobs",
        redis_pool=redis,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
        handle_signals=False,
        keep_result=0,
        health_check_interval=30,
    )


def _cron(job: Job, tools: Tools, name: str) -> CronJob:
    async def run_job(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:  # noqa: ARG001 - what arq calls
        scope = None if tracing.active is None else tracing.active.job(job.name)
        error: str | None = "failed"
        try:
            await drain(tools, job)
            error = None
        finally:
            if scope is not None:
                scope.end(error)

    # No run is tried again: the next one comes in any case.
    return cron(run_job, name=name, timeout=job.timeout_seconds, keep_result=0, max_tries=1, **job.clock)


def open_arq_redis(settings: Settings) -> ArqRedis:
    """Return arq's client, made to survive a restart of Redis, which arq's own default does not."""
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
