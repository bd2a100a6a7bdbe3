"""Partitions are made ahead, take the rows that came before them, and go as a whole."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.errors import Unavailable
from core.partitions import gauges, keeping
from core.platform import open_platform
from core.service import Service
from core.settings import Settings
from jobs.loops import drain
from jobs.table import JOBS, Tools
from tests.core.partitions.aging import age, attempt, audited, rows_of
from tests.queries import QUERIES


async def make_all(service: Service) -> int:
    made = 0
    while more := await keeping.make_ahead(service.database, service.settings):
        made += more
    return made


async def test_a_table_that_gets_no_partition_is_measured_all_the_same(service: Service, owner: Any) -> None:
    """The next partition would lie over the last one, so that it is refused."""
    await owner.execute("UPDATE partitions SET to_at = now() + interval '2 days' WHERE to_at IS NOT NULL")
    gauges.AHEAD.labels("webhook_attempts").set(7 * 86_400)
    async with open_platform(service) as platform:
        with pytest.raises(asyncpg.PostgresError):
            await drain(Tools(platform), JOBS["partitions"])
    assert gauges.AHEAD.labels("webhook_attempts")._value.get() < 2 * 86_400


async def test_partitions_are_made_ahead_and_take_what_came_before_them(service: Service, owner: Any) -> None:
    await age(owner, "webhook_attempts", 3)
    await age(owner, "audit_events", 70)
    serving = service.database.connections.pool
    for days in (400, 4, 2, 1, 0, -1):
        await attempt(serving, days)
        await audited(serving, days)
    await attempt(serving, -40)
    before = {table: await rows_of(owner, table) for table in ("webhook_attempts", "audit_events")}
    await gauges.measure(service.database)
    assert gauges.STRAYS.labels("webhook_attempts")._value.get() == 5
    assert gauges.AHEAD.labels("webhook_attempts")._value.get() < 0

    # The day of today, 3 days before it and 7 after it; months from 70 days ago to 62 days ahead.
    assert await make_all(service) >= 11 + 4
    assert await make_all(service) == 0
    for table, rows in before.items():
        assert await rows_of(owner, table) == rows
        spans = await owner.fetch(
            "SELECT from_at, to_at FROM partitions WHERE parent = $1 AND to_at IS NOT NULL ORDER BY to_at",
            table,
        )
        assert [span["from_at"] for span in spans[1:]] == [span["to_at"] for span in spans[:-1]]
        for name in await owner.fetch("SELECT name FROM partitions WHERE parent = $1", table):
            # Neither the serving role nor anybody else can write past the whole.
            for right in ("INSERT", "UPDATE", "DELETE"):
                assert not await owner.fetchval(
                    "SELECT has_table_privilege('tallystick_serving', $1, $2)", name["name"], right
                )
    await gauges.measure(service.database)
    assert gauges.STRAYS.labels("webhook_attempts")._value.get() == 1, "of a time far ahead"
    assert gauges.STRAYS.labels("audit_events")._value.get() == 0
    assert gauges.AHEAD.labels("webhook_attempts")._value.get() > 7 * 86_400
    assert gauges.AHEAD.labels("audit_events")._value.get() > 62 * 86_400


async def test_old_partitions_go_as_a_whole_and_young_ones_stay(service: Service, owner: Any) -> None:
    await age(owner, "webhook_attempts", 35)
    await age(owner, "audit_events", 200)
    await make_all(service)
    for days in (300, 36, 34, 32.5, 29.9, 10, 0):
        await attempt(owner, days)
    for days in (300, 150, 100, 59, 10, 0):
        await audited(owner, days)
    settings = service.settings.model_copy(update={"webhook_attempts_days": 30, "audit_retention_days": 1})
    while await keeping.detach_old(service.database, settings):
        for part in await keeping.detached(service.database):
            assert await keeping.drop(service.database, part.name, unarchived=True)
            assert not await keeping.drop(service.database, part.name, unarchived=True)
    ages = "SELECT round(extract(epoch FROM now() - {0}) / 86400) FROM {1} ORDER BY 1"
    assert [row[0] for row in await owner.fetch(ages.format("at", "webhook_attempts"))] == [0, 10, 30]
    # A month goes when its last day is 30 days old, which is the least.
    left = [row[0] for row in await owner.fetch(ages.format("created_at", "audit_events"))]
    assert left in ([0, 10], [0, 10, 59])
    await make_all(service)
    assert await keeping.detach_old(service.database, settings) is None


async def test_the_serving_role_takes_off_nothing_young_and_drops_nothing_unarchived(
    service: Service, owner: Any
) -> None:
    await age(owner, "webhook_attempts", 5)
    await make_all(service)
    database = service.database
    for name, arguments in (
        ("detach_partition", ("webhook_attempts", 0)),
        ("detach_partition", ("audit_events", 29)),
        ("make_partition", ("webhook_attempts", "year", 1)),
        ("make_partition", ("webhook_attempts", "day", 4_000)),
        ("prune_attempts", (0, 10)),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await database.fetchval(QUERIES[name], *arguments)
    with pytest.raises(asyncpg.NoDataFoundError):
        await database.fetchval(QUERIES["detach_partition"], "entries", 3_000)
    name = await database.fetchval(QUERIES["detach_partition"], "webhook_attempts", 1)
    assert not await keeping.drop(database, "webhook_attempts_rest", unarchived=True), "it is attached"
    assert not await keeping.drop(database, name, unarchived=False)
    for statement in (
        f"DROP TABLE {name}",
        f"INSERT INTO {name} DEFAULT VALUES",
        "DELETE FROM webhook_attempts",
        "DELETE FROM webhook_attempts_rest",
        "UPDATE partitions SET dropped_at = now()",
        "SELECT partition_forget('webhook_attempts_first')",
        "ALTER TABLE webhook_attempts DETACH PARTITION webhook_attempts_rest",
    ):
        async with database.transaction() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.raw.transaction():
                    await connection.raw.execute(statement)


async def test_whoever_reads_for_long_delays_the_removal_and_no_payment(
    service: Service, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of all partitions keeps them; the call gives way after 200 ms, so that writers go on."""
    monkeypatch.setattr(keeping, "BUSY_TRIES", 1)
    await age(owner, "webhook_attempts", 40)
    await make_all(service)
    async with owner.transaction():
        await owner.fetch("SELECT FROM webhook_attempts")
        with pytest.raises(Unavailable):
            await keeping.detach_old(service.database, service.settings)
        await attempt(service.database.connections.pool, 0)
    assert await keeping.detach_old(service.database, service.settings) == "webhook_attempts_first"


@pytest.mark.parametrize(
    ("days", "span", "ahead"), [(1, "day", 7), (60, "day", 7), (61, "month", 62), (3_650, "month", 62)]
)
async def test_the_number_of_partitions_is_bounded(
    settings: Settings, days: int, span: str, ahead: int
) -> None:
    kept = keeping.kept_tables(settings.model_copy(update={"webhook_attempts_days": days}))
    assert kept[0] == ("webhook_attempts", days, span, ahead)
    assert kept[1].days == 0, "the audit stays for ever by default"


async def test_the_worker_makes_partitions_and_removes_them_at_night(
    service: Service, owner: Any, tmp_path: Path
) -> None:
    await age(owner, "webhook_attempts", 33)
    await attempt(owner, 50)
    async with open_platform(service) as platform:
        assert (await drain(Tools(platform), JOBS["partitions"])).done >= 41
        assert (await drain(Tools(platform), JOBS["archive"])).done in {3, 4}
    assert await rows_of(owner, "webhook_attempts") == set()
    assert list(tmp_path.rglob("*.gz")) == []
