"""The health of the service: alive, ready, and in numbers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_address

import asyncpg
import msgspec
from aiohttp import hdrs, web
from redis.exceptions import RedisError

from core import __version__, metrics, migrations
from core.access.redis_script import PROBE_MS, PROBE_NAME
from core.errors import Refusal
from core.settings import Settings
from handlers.http.admin_token import ADMIN_TOKEN
from handlers.http.dispatch import ApiSurface
from handlers.http.parts import passed_on
from handlers.http.route import Call, Route, answer, table

# Probes come every few seconds, so a check that takes longer counts as failed.
CHECK_TIMEOUT_SECONDS = 2.0


class Health(msgspec.Struct, frozen=True):
    """The answer of a process that is alive."""

    status: str
    service: str
    version: str
    timestamp: datetime


class Ready(msgspec.Struct, frozen=True):
    """The state of each part. `missing` are those that serving needs, `degraded` those it can do without."""

    status: str
    checks: dict[str, bool]
    missing: list[str]
    degraded: list[str]
    timestamp: datetime


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Webhooks since the start. `webhooks_failed` are those that were signed well and not stored."""

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


async def health(_call: Call) -> web.Response:
    """Answer without asking the database, since a slow one must not get the process restarted."""
    return answer(200, Health("ok", "tallystick", __version__, datetime.now(UTC)))


async def ready(call: Call) -> web.Response:
    """Answer whether requests should be sent here. Redis may be gone, since transfers work without it."""
    parts = call.parts
    if parts.missing is not None:  # before the service is open there is no Redis to ask
        checks = {"database": parts.missing.code == "not_migrated", "migrations": False}
    else:
        database, redis = await asyncio.gather(has_database(call), has_redis(call))
        if database and not parts.migrated:
            parts.migrated = await _is_migrated(parts.settings)
        checks = {"database": database, "migrations": parts.migrated, "redis": redis}
    checks["running"] = not parts.stopping
    missing = [name for name, good in checks.items() if not good and name != "redis"]
    degraded = [] if checks.get("redis", True) else ["redis"]
    metrics.mark_ready(ready=not missing)
    body = Ready("not_ready" if missing else "ready", checks, missing, degraded, datetime.now(UTC))
    return answer(503 if missing else 200, body)


async def show_metrics(call: Call) -> web.Response:
    """Answer in Prometheus' text format. In prod only loopback and holders of the admin token may read it.

    With TRUSTED_PROXIES only the token counts.
    """
    _check_reader(call)
    return await metrics_page(call)


async def metrics_page(call: Call, media_type: str = metrics.CONTENT_TYPE) -> web.Response:
    """Answer the metrics to a reader who may see them."""
    # The database tells the workers' state: a worker that hangs cannot, and its last word is no longer true.
    await call.parts.collector.collect()
    # The gauge is set when a batch leaves, too; but while the database hangs none leaves.
    metrics.LEDGER_LANE_WAITING.set(call.service.ledger.poster.waiting)
    return web.Response(body=metrics.render(), headers={hdrs.CONTENT_TYPE: media_type})


async def show_counters(call: Call) -> web.Response:
    """Answer the counts of webhooks; for the same readers as the metrics."""
    _check_reader(call)
    return counters_page()


def counters_page() -> web.Response:
    """Answer the counts of webhooks to a reader who may see them."""
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
    parts = call.parts
    # Behind a proxy on the same host the address says nothing: everybody would come from loopback. A proxy that the
    # settings do not name mostly gives itself away.
    open_to_address = not parts.settings.trusted_proxies and (
        parts.settings.env != "prod" or (_is_loopback(call.address) and not passed_on(call.request))
    )
    if not open_to_address and not parts.administrators.includes(call.request):
        raise Refusal(
            "unauthorized",
            "In prod and behind proxies (TRUSTED_PROXIES) metrics want the admin token,"
            f" as {ADMIN_TOKEN} or as a bearer token.",
        )


async def has_database(call: Call) -> bool:
    """Whether PostgreSQL answers in time."""
    if call.parts.missing is not None:
        return False
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await call.service.database.ping()
    except (Refusal, TimeoutError):
        return False
    return True


async def has_redis(call: Call) -> bool:
    """Whether Redis takes something in, in time."""
    if call.parts.missing is not None:
        return False
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            # The guard probes in the same way: a Redis that takes nothing in is of no use.
            await call.service.redis.set(PROBE_NAME, 1, px=PROBE_MS)
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


ROUTES = table(
    Route(
        "GET", "/health", health, "get_health", "Whether the process is alive",
        answers={200: Health}, needs_service=False,
    ),
    Route(
        "GET", "/ready", ready, "get_readiness", "Whether requests should be sent here",
        answers={200: Ready, 503: Ready}, needs_service=False,
        description="Without Redis the service is ready and says that it is degraded.",
    ),
    Route(
        "GET", "/metrics", show_metrics, "get_metrics", "Metrics for Prometheus",
        answers={200: None}, media=("text/plain",), problems=("unauthorized",),
        description="In prod for loopback and with the admin token only.",
    ),
    Route(
        "GET", "/metrics/json", show_counters, "get_counters", "Counts of webhooks",
        answers={200: CounterPage}, problems=("unauthorized",),
        description="In prod for loopback and with the admin token only.",
    ),
    tag="Service", limited=False,
)  # fmt: skip
HEALTH = ApiSurface("health", ROUTES, strict=False)
