"""How the service is: alive, ready, and in numbers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

import asyncpg
import msgspec
from aiohttp import hdrs, web
from redis.exceptions import RedisError

from core import __version__, metrics, migrations, pulse
from core.access.link import PROBE_MS, PROBE_NAME
from core.errors import Refusal
from core.service import Service
from core.settings import Settings
from handlers.api import Call, Route, answer

# A probe that waits longer says as much as one that fails; probes come every few seconds.
CHECK_TIMEOUT_SECONDS = 2.0
ADMIN_TOKEN = "X-Admin-Token"  # noqa: S105 - the name of a header


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
    settings = call.service.settings
    if settings.env == "prod" and not (_is_loopback(call.address) or _is_admin(call.request, settings)):
        raise Refusal(
            "unauthorized", f"In prod /metrics wants the admin token, as {ADMIN_TOKEN} or as a bearer token."
        )
    # The workers' state is the database's to tell: a worker that hangs cannot, and what it said last is no longer true.
    await pulse.measure(call.service.database)
    # Set when a batch leaves, too; but while the database hangs none leaves.
    metrics.LEDGER_LANE_WAITING.set(call.service.ledger.poster.waiting)
    return web.Response(body=metrics.render(), headers={hdrs.CONTENT_TYPE: metrics.CONTENT_TYPE})


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


def _is_admin(request: web.Request, settings: Settings) -> bool:
    """Compare the presented token with every one that is active, in constant time."""
    presented = request.headers.get(ADMIN_TOKEN) or request.headers.get(hdrs.AUTHORIZATION, "").removeprefix(
        "Bearer "
    )
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    active = [hashlib.sha256(str(token).encode()).digest() for token in settings.admin_token]
    active += [bytes.fromhex(known) for known in settings.admin_token_sha256]
    matches = [hmac.compare_digest(digest, known) for known in active]
    return any(matches)


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
)  # fmt: skip
