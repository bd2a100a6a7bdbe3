"""How the service is: alive, ready, and in numbers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

import asyncpg
import msgspec
from aiohttp import hdrs, web
from redis.exceptions import RedisError

from core import __version__, metrics, migrations
from core.access.redis_script import PROBE_MS, PROBE_NAME
from core.errors import Refusal
from core.service import Service
from core.settings import Settings
from core.work import gauges
from handlers.http.admin_token import ADMIN_TOKEN, Administrators
from handlers.http.route import Call, Route, answer

# A probe that waits longer says as much as one that fails; probes come every few seconds.
CHECK_TIMEOUT_SECONDS = 2.0


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str
    service: str
    version: str
    timestamp: datetime


class Ready(msgspec.Struct, frozen=True):
    """`missing` names what keeps us from serving, `degraded` what is gone and can be done without."""

    status: str
    checks: dict[str, bool]
    missing: list[str]
    degraded: list[str]
    timestamp: datetime


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What has come in since the start; `webhooks_failed`: signed well, and not taken in."""

    webhooks_received: int
    webhooks_processed: int
    webhooks_duplicate: int
    webhooks_invalid_signature: int
    webhooks_failed: int
    dlq_messages_added: int
    dlq_messages_retried: int


class CounterPage(msgspec.Struct, frozen=True):
    """The counters, and when they were read."""

    counters: Counters
    timestamp: datetime


@dataclass(slots=True)
class Readiness:
    """What /ready remembers between two questions."""

    stopping: bool = False
    migrated: bool = False


READINESS: web.AppKey[Readiness] = web.AppKey("readiness", Readiness)


async def health(_call: Call) -> web.Response:
    """Answer without asking anything, so that a slow database does not get the process restarted."""
    return answer(200, Health("ok", "tallystick", __version__, datetime.now(UTC)))


async def ready(call: Call) -> web.Response:
    """Say whether requests should be sent here. Redis may be gone: transfers work without it."""
    readiness = call.request.app[READINESS]
    database, redis = await asyncio.gather(_has_database(call.service), _has_redis(call.service))
    if database and not readiness.migrated:
        readiness.migrated = await _is_migrated(call.service.settings)
    checks = {
        "database": database,
        "migrations": readiness.migrated,
        "redis": redis,
        "running": not readiness.stopping,
    }
    missing = [name for name, good in checks.items() if not good and name != "redis"]
    metrics.mark_ready(ready=not missing)
    body = Ready(
        "not_ready" if missing else "ready", checks, missing, [] if redis else ["redis"], datetime.now(UTC)
    )
    return answer(503 if missing else 200, body)


async def show_metrics(call: Call) -> web.Response:
    """Answer in Prometheus' text format. In prod only loopback and holders of the admin token may read it."""
    _check_reader(call)
    # The workers' state is the database's to tell: a worker that hangs cannot, and what it said last is no longer true.
    await gauges.measure(call.service.database)
    # Set when a batch leaves, too; but while the database hangs none leaves.
    metrics.LEDGER_LANE_WAITING.set(call.service.ledger.poster.waiting)
    return web.Response(body=metrics.render(), headers={hdrs.CONTENT_TYPE: metrics.CONTENT_TYPE})


async def show_counters(call: Call) -> web.Response:
    """Answer the counts of webhooks as the existing inbox does; for the same readers as the metrics."""
    _check_reader(call)
    events = metrics.totals("webhook_events_total", "status")
    refused = metrics.totals("webhook_signature_validations_total", "valid").get("false", 0)
    letters = metrics.totals("dlq_messages_total", "action")
    counters = Counters(
        webhooks_received=sum(events.values()),
        webhooks_processed=events.get("processed", 0),
        webhooks_duplicate=events.get("duplicate", 0),
        webhooks_invalid_signature=refused,
        webhooks_failed=max(0, events.get("failed", 0) + events.get("error", 0) - refused),
        dlq_messages_added=letters.get("added", 0),
        dlq_messages_retried=letters.get("retried", 0),
    )
    return answer(200, CounterPage(counters, datetime.now(UTC)))


def _check_reader(call: Call) -> None:
    settings = call.service.settings
    if settings.env == "prod" and not (
        _is_loopback(call.address) or Administrators(settings).includes(call.request)
    ):
        raise Refusal(
            "unauthorized", f"In prod metrics want the admin token, as {ADMIN_TOKEN} or as a bearer token."
        )


async def _has_database(service: Service) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await service.database.ping()
    except (Refusal, TimeoutError):
        return False
    return True


async def _has_redis(service: Service) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            # As the guard looks for it: a Redis that takes nothing in is of no use.
            await service.redis.set(PROBE_NAME, 1, px=PROBE_MS)
    except (RedisError, OSError, TimeoutError):
        return False
    return True


async def _is_migrated(settings: Settings) -> bool:
    try:
        return not await migrations.pending(str(settings.database_url))
    except (Refusal, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


ROUTES = (
    Route(
        "GET", "/health", health, "get_health", "Whether the process is alive", "Service",
        answers={200: Health}, limited=False, surface="service",
    ),
    Route(
        "GET", "/ready", ready, "get_readiness", "Whether requests should be sent here", "Service",
        answers={200: Ready, 503: Ready}, limited=False, surface="service",
        description="Without Redis the service is ready and says that it is degraded.",
    ),
    Route(
        "GET", "/metrics", show_metrics, "get_metrics", "Metrics for Prometheus", "Service",
        answers={200: None}, media=("text/plain",), problems=("unauthorized",), limited=False, surface="service",
        description="In prod for loopback and with the admin token only.",
    ),
    Route(
        "GET", "/metrics/json", show_counters, "get_counters", "Counts of webhooks", "Service",
        answers={200: CounterPage}, problems=("unauthorized",), limited=False, surface="service",
        description="In prod for loopback and with the admin token only.",
    ),
)  # fmt: skip
