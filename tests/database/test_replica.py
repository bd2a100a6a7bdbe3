"""A real streaming standby: lists come from it while it is young enough, and from the primary otherwise; none fails."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import metrics
from core.service import open_service
from handlers.app import create_app
from handlers.http.conditions import DATA_AGE
from handlers.http.parts import PARTS
from ops.embedded import EmbeddedServers
from tests.database.day import Day, day_at, settings_of_day
from tests.database.standby import standby_of
from tests.handlers.wallets.conftest import ADMIN

Wait = Callable[..., Awaitable[Any]]

MOST_MS = 1_000


async def listed(day: Day, **headers: str) -> tuple[int | None, list[str]]:
    """Return how old the list may be (None: it is the primary's), and its references."""
    asked = {"Authorization": f"Bearer {day.key}", **headers}
    async with day.api.get("/v1/transfers", params={"limit": "5"}, headers=asked) as response:
        assert response.status == 200, await response.text()
        age = response.headers.get(DATA_AGE)
        data = (await response.json())["data"]
    if age is not None:
        assert int(age) <= MOST_MS, "an answer that is older than the bound"
    return None if age is None else int(age), [transfer["reference"] for transfer in data]


def told(name: str) -> float:
    """Return a metric."""
    found = re.search(rf"^{name} (\S+)$", metrics.render().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_a_server_that_is_no_standby_is_never_read(
    database_url: str, redis_url: str, tmp_path: Path, eventually: Wait
) -> None:
    """The primary stands for a standby that was promoted: it is out of recovery."""
    settings = settings_of_day(
        database_url, redis_url, tmp_path, database_replica_url=database_url, replica_reads="lists"
    )
    admin = {"X-Admin-Token": ADMIN}
    async with (
        open_service(settings) as service,
        TestClient(TestServer(create_app(settings, service))) as client,
    ):
        assert client.app is not None
        replica = client.app[PARTS].replica
        assert replica is not None
        await eventually(lambda: replica.database is not None)
        async with client.get("/admin/events", headers=admin) as response:
            assert (response.status, response.headers.get(DATA_AGE)) == (200, None)
        assert told("replica_lag_seconds") == float("inf")
        assert told("replica_max_lag_seconds") == settings.replica_max_lag_ms / 1000


@pytest.mark.drill
async def test_lists_come_from_a_standby_within_its_bound(
    database_url: str,
    redis_url: str,
    servers: EmbeddedServers,
    tmp_path: Path,
    eventually: Wait,
    record_property: Callable[[str, object], None],
) -> None:
    async with standby_of(servers.postgres) as standby:
        replica_url = standby.url(urlsplit(database_url).path[1:])
        changes = {"replica_max_lag_ms": str(MOST_MS), "replica_reads": "lists"}
        settings = settings_of_day(
            database_url, redis_url, tmp_path, database_replica_url=replica_url, **changes
        )
        async with day_at(settings) as day:

            async def pay(reference: str) -> None:
                body = {"from": "cash", "to": "shop", "amount": 1, "reference": reference}
                await day.ask("/v1/transfers", body, key=reference)

            async def from_standby() -> bool:
                return (await listed(day))[0] is not None

            async def from_primary() -> bool:
                return (await listed(day))[0] is None

            await pay("first")
            await eventually(from_standby)

            async def caught_up() -> bool:
                age, found = await listed(day)
                return age is not None and found[:1] == ["first"]

            await eventually(caught_up)
            await eventually(lambda: told("replica_lag_seconds") < MOST_MS / 1000)
            # A caller who asks for the newest has the primary's.
            assert (await listed(day, **{"Cache-Control": "no-cache"}))[0] is None

            # The standby falls behind: within the bound it may be read, and then no longer.
            await standby.do("SELECT pg_wal_replay_pause()")
            await pay("unseen there")
            await eventually(from_primary)
            assert (await listed(day))[1][0] == "unseen there"
            await eventually(lambda: told("replica_lag_seconds") > MOST_MS / 1000)
            await standby.do("SELECT pg_wal_replay_resume()")
            await eventually(from_standby)

            # It dies under load, and comes back; nobody has noticed.
            async with day.under_load():
                before = day.done
                await eventually(lambda: day.done > before + 20, timeout=30)
                standby.kill()
                await eventually(from_primary)
                await standby.start()
                await eventually(from_standby, timeout=30)
            assert day.errors == []

            # Once promoted it has a history of its own.
            assert await standby.do("SELECT pg_promote()")
            await pay("after the promotion")
            await eventually(from_primary)
            await day.settled(eventually)
        record_property("shown", f"a standby paused, killed, promoted: {day.done} requests and no error")
