"""The life of the parts that the routes share: opened at the start, or as soon as the database lets us in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import structlog

from core import metrics, tasks
from core.access.api_keys import ApiKeys
from core.access.auth_service import GrpcAuthService
from core.access.guard import Guard
from core.access.internal_callers import InternalCallers
from core.errors import Refusal, Unavailable
from core.identity.identity import open_identity
from core.inbox.rules import Admission
from core.metrics.loop import watch_loop
from core.payables.cards import codes
from core.payments import observing
from core.payments.orchestration.desk import Desk
from core.payments.orchestration.provider_events import EventDesk
from core.payments.router import open_engine
from core.platform import open_platform
from core.service import Service, open_service
from core.storage.replica import open_replica
from core.work.gauges import Collector
from core.work.retries import half_jitter
from handlers.http.parts import Parts
from handlers.webhooks.inbox_receive import open_inbound
from handlers.webhooks.outbox_parts import open_outbound

_log = structlog.get_logger(__name__)

# Seconds before the second try to open the service, doubled with each further try up to the limit.
RETRY_SECONDS = 0.5
RETRY_LIMIT_SECONDS = 5.0


async def opened(parts: Parts, service: Service | None) -> AsyncIterator[None]:
    """Fill `parts` from `service`, or from one opened here, and keep them for the life of the application."""
    metrics.mark_started(parts.settings.env)
    watching = asyncio.create_task(watch_loop())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tasks.end, watching)
        retrying: asyncio.Task[None] | None = None
        # The parts open before the application listens, so that a successor is ready before its predecessor goes.
        if not await _try(parts, stack, service):
            retrying = asyncio.create_task(_retry(parts, stack))
        try:
            yield
        finally:
            if retrying is not None:
                await tasks.end(retrying)


async def _try(parts: Parts, stack: AsyncExitStack, service: Service | None = None) -> bool:
    try:
        if service is None:
            service = await stack.enter_async_context(open_service(parts.settings))
    except Refusal as refusal:
        parts.missing = refusal
        return False
    except asyncpg.PostgresError as error:  # the server runs, but does not let us in
        parts.missing = Unavailable(f"PostgreSQL answers: {error}.")
        return False
    parts.service = service
    parts.replica = await stack.enter_async_context(
        open_replica(service.database, parts.settings, service.epoch)
    )
    parts.guard = Guard(service.redis, parts.settings, service.epoch)
    stack.push_async_callback(parts.guard.close)
    parts.api_keys = ApiKeys(service.database, parts.settings.api_key_cache_secs)
    parts.inbound = await stack.enter_async_context(open_inbound(service))
    parts.outbound = await stack.enter_async_context(open_outbound(service))
    parts.platform = await stack.enter_async_context(open_platform(service))
    onward = {codes.SURFACE: codes.CardMoney(parts.platform)}
    parts.payments = await stack.enter_async_context(open_engine(service, parts.platform.waker, onward))
    parts.collector = Collector(
        service.database,
        parts.settings.metrics_interval_secs,
        lambda answers: observing.measure(parts.payments, answers=answers),
    )
    _open_orchestration(parts, stack)
    parts.identity = await stack.enter_async_context(open_identity(parts.platform, parts.tokens))
    parts.missing = None
    return True


def _open_orchestration(parts: Parts, stack: AsyncExitStack) -> None:
    settings, database = parts.settings, parts.service.database
    parts.callers = InternalCallers(database, settings.api_key_cache_secs, GrpcAuthService.of(settings))
    stack.push_async_callback(parts.callers.close)
    parts.desk = Desk(parts.payments, settings)
    inbound = parts.inbound
    parts.provider_events = EventDesk(
        parts.desk, parts.payments, inbound.stripe, inbound.intake, Admission.of(settings)
    )


async def _retry(parts: Parts, stack: AsyncExitStack) -> None:
    for attempt in itertools.count(1):
        wait = half_jitter(attempt, base_seconds=RETRY_SECONDS, cap_seconds=RETRY_LIMIT_SECONDS)
        if parts.missing is not None:
            _log.warning("service.not_open", reason=parts.missing.detail, retry_in_seconds=round(wait, 1))
        await asyncio.sleep(wait)
        try:
            if await _try(parts, stack):
                _log.info("service.open")
                return
        except Exception:  # noqa: BLE001 - a mistake of ours; nobody awaits this task, so only the log tells
            _log.exception("service.not_open")
