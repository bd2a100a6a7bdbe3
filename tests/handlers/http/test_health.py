"""Alive, ready and measured, also while parts are gone."""

import asyncio
import hashlib
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import __version__
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Posting, operation_id
from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from handlers.http.parts import PARTS


@pytest.fixture
def prod(settings: Settings) -> Settings:
    """Settings that follow the rules of prod, behind a proxy on this machine."""
    token = hashlib.sha256(b"second-admin-token").hexdigest()
    return settings.model_copy(
        update={
            "env": "prod",
            "trusted_proxies": ("127.0.0.1",),
            "admin_token": ("first-admin-token",),
            "admin_token_sha256": (token,),
        }
    )


async def test_health(api: Any) -> None:
    response = await api.get("/health")
    body = await response.json()
    assert response.status == 200
    assert (body["status"], body["service"], body["version"]) == ("ok", "tallystick", __version__)
    age = datetime.now(UTC) - msgspec.convert(body["timestamp"], datetime)
    assert abs(age.total_seconds()) < 60


async def test_ready(api: Any) -> None:
    response = await api.get("/ready")
    body = await response.json()
    assert (response.status, body["status"], body["missing"], body["degraded"]) == (200, "ready", [], [])
    assert body["checks"] == {"database": True, "migrations": True, "redis": True, "running": True}


async def test_ready_without_redis_says_degraded(api: Any, servers: Any, redis_url: str) -> None:
    servers.valkey.kill()
    response = await api.get("/ready")
    body = await response.json()
    assert (response.status, body["status"], body["degraded"]) == (200, "ready", ["redis"])


async def test_ready_with_a_full_redis_says_degraded(api: Any, service: Service, eventually: Any) -> None:
    async def degraded() -> list[str]:
        return list((await (await api.get("/ready")).json())["degraded"])

    await service.redis.config_set("maxmemory", 1)
    try:
        assert await degraded() == ["redis"]
    finally:
        await service.redis.config_set("maxmemory", 0)
    assert await degraded() == []


async def test_not_ready_without_the_database_and_ready_again(
    api: Any, servers: Any, eventually: Any
) -> None:
    servers.postgres.kill()
    response = await api.get("/ready")
    body = await response.json()
    assert (response.status, body["status"]) == (503, "not_ready")
    assert "database" in body["missing"]
    assert (await api.get("/health")).status == 200
    servers.postgres.start()

    async def ready() -> bool:
        return bool((await api.get("/ready")).status == 200)

    await eventually(ready)


async def test_not_ready_before_the_migrations(service: Service, settings: Settings) -> None:
    await _administer(service, "DELETE FROM schema_migrations WHERE name LIKE 'functions/%'")
    async with TestClient(TestServer(create_app(settings, service))) as client:
        body = await (await client.get("/ready")).json()
        assert (body["status"], body["missing"]) == ("not_ready", ["migrations"])


async def test_not_ready_while_stopping(api: Any) -> None:
    api.server.app[PARTS].stopping = True
    response = await api.get("/ready")
    assert (response.status, (await response.json())["missing"]) == (503, ["running"])


async def test_metrics(api: Any) -> None:
    await api.get("/health")
    response = await api.get("/metrics")
    text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'http_requests_total{endpoint="/health"' in text
    assert "application_up 1.0" in text


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_metrics_are_closed_to_what_a_proxy_of_this_machine_passes_on(
    settings: Settings, service: Service, header: str
) -> None:
    """Also where the settings do not name the proxy: its clients all come from loopback."""
    closed = settings.model_copy(update={"env": "prod", "admin_token": ("an-admin-token",)})
    async with TestClient(TestServer(create_app(closed, service))) as client:
        for path in ("/metrics", "/metrics/json"):
            assert (await client.get(path)).status == 200
            assert (await client.get(path, headers={header: "192.0.2.7"})).status == 401
            known = {header: "192.0.2.7", "X-Admin-Token": "an-admin-token"}
            assert (await client.get(path, headers=known)).status == 200


async def test_metrics_tell_how_far_the_workers_are(
    api: Any, service: Service, servers: Any, eventually: Any
) -> None:
    async def figures() -> tuple[float, float, float, float]:
        text = await (await api.get("/metrics")).text()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        names = (
            *("feed_lag_seconds", "worker_heartbeat_age_seconds"),
            *("backup_age_seconds", "dlq_messages_pending"),
        )
        lag, age, backup, dead = (float(values[name]) for name in names)
        return lag, age, backup, dead

    assert await figures() == (0, math.inf, math.inf, 0)
    await _administer(
        service, "INSERT INTO batches VALUES (nextval('batch_seq'), clock_timestamp() - interval '1 hour', 1)"
    )
    await _administer(
        service,
        "INSERT INTO workers (id, name, seen_at)"
        " VALUES (gen_random_uuid(), 'hangs', clock_timestamp() - interval '1 day')",
    )
    await _administer(
        service, "INSERT INTO backups VALUES ('/b', 'b', clock_timestamp() - interval '3 days', 1, 1)"
    )
    lag, age, backup, dead = await figures()
    assert 3_600 <= lag < 86_400 <= age < 3 * 86_400 <= backup < math.inf
    assert dead == 0
    servers.postgres.kill()
    assert all(math.isnan(figure) for figure in await figures())
    servers.postgres.start()

    async def known() -> bool:
        return (await figures())[0] >= 3_600

    await eventually(known)


async def test_metrics_tell_what_waits_while_no_batch_leaves(
    api: Any, service: Service, eventually: Any
) -> None:
    async def waiting() -> bool:
        return "ledger_lane_waiting 2.0\n" in await (await api.get("/metrics")).text()

    await open_accounts(
        service.database, [Opening(code, "USD", Limits(floor=None)) for code in ("a", "b")], 1
    )
    connection = await asyncpg.connect(str(service.settings.database_url))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE keys IN ACCESS EXCLUSIVE MODE")
            legs = (Leg("a", -5), Leg("b", 5))
            first, *others = (
                Posting(id=operation_id(1, f"{number}"), principal_id=1, legs=legs) for number in range(3)
            )
            calls = [asyncio.create_task(service.ledger.poster.submit(first))]
            await eventually(
                lambda: connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            )
            calls += [asyncio.create_task(service.ledger.poster.submit(other)) for other in others]
            await eventually(waiting)
    finally:
        await connection.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_metrics_do_not_wait_for_a_database_that_hangs(
    api: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.work.gauges.MEASURE_SECONDS", 0.05)
    connection = await asyncpg.connect(str(service.settings.database_url))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
            response = await api.get("/metrics")
            assert (response.status, "feed_lag_seconds NaN" in await response.text()) == (200, True)
    finally:
        await connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics/json"])
async def test_metrics_in_prod_are_for_loopback_and_admins(
    prod: Settings, service: Service, path: str
) -> None:
    async with TestClient(TestServer(create_app(prod, replace(service, settings=prod)))) as client:

        async def status(**headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await client.get(path, headers=named)).status

        # Behind a proxy on the same host everybody seems to come from loopback.
        assert await status() == 401
        outside = "192.0.2.7"
        assert await status(X_Forwarded_For=outside) == 401
        assert await status(X_Forwarded_For=outside, X_Admin_Token="wrong") == 401
        assert await status(X_Forwarded_For=outside, X_Admin_Token="") == 401
        assert await status(X_Forwarded_For=outside, Authorization="Bearer é") == 401
        assert await status(X_Forwarded_For=outside, X_Admin_Token="first-admin-token") == 200
        assert await status(X_Forwarded_For=outside, Authorization="Bearer second-admin-token") == 200
    direct = prod.model_copy(update={"trusted_proxies": ()})
    async with TestClient(TestServer(create_app(direct, replace(service, settings=direct)))) as client:
        assert (await client.get(path)).status == 200


async def test_metrics_are_shown_without_the_database(api: Any, servers: Any) -> None:
    servers.postgres.kill()
    response = await api.get("/metrics")
    assert response.status == 200
    assert "dlq_messages_pending" in await response.text()


async def _administer(service: Service, statement: str) -> None:
    connection = await asyncpg.connect(str(service.settings.database_url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
