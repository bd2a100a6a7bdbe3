"""A partition is archived whole, dropped after that alone, and comes back as it was; a crash loses nothing."""

import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from core.database import open_database
from core.errors import Refusal
from core.partitions import archiving, keeping, restoring
from core.partitions.stores import Folder
from core.service import Service
from core.settings import Settings
from tests.core.partitions.aging import age, attempt, audited, rows_of
from tests.core.partitions.test_keeping import make_all

pytestmark = pytest.mark.fresh

TABLES = ("webhook_attempts", "audit_events")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    archive = (tmp_path / "archive").as_uri()
    return settings.model_copy(update={"archive_url": archive, "audit_retention_days": 90})


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "PAGE_ROWS", 2)


async def fill(service: Service, owner: Any) -> dict[str, set[str]]:
    """Write rows of many days into both tables, and return them."""
    await age(owner, "webhook_attempts", 34)
    await age(owner, "audit_events", 150)
    await make_all(service)
    for days in (300, 200, 100, 50, 40, 33.5, 33.4, 33.3, 33.2, 33.1, 10, 0):
        await attempt(owner, days)
        await audited(owner, days)
    return {table: await rows_of(owner, table) for table in TABLES}


async def drain(service: Service) -> int:
    done = 0
    while (progress := await archiving.step(service.database, service.settings, service.epoch)).any:
        done += progress.done
    return done


async def archived(owner: Any, table: str) -> list[str]:
    """Return the rows in the archive that are noted as such, each as text."""
    found = []
    for row in await owner.fetch(
        "SELECT * FROM partitions WHERE parent = $1 AND dropped_at IS NOT NULL", table
    ):
        path = Path(unquote(urlsplit(row["location"]).path))
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        manifest = json.loads(path.with_name(path.name.replace("jsonl.gz", "manifest.json")).read_text())
        assert (manifest["rows"], manifest["sha256"]) == (row["row_count"], row["sha256"])
        assert manifest["rows"] == len(lines)
        assert [column["name"] for column in manifest["columns"]] == list(
            json.loads(lines[0]) if lines else []
        ) or (not lines)
        found += lines
    return found


@pytest.mark.usefixtures("pages")
async def test_what_leaves_the_database_is_in_the_archive_and_comes_back(
    service: Service, owner: Any, tmp_path: Path
) -> None:
    before = await fill(service, owner)
    assert await drain(service) >= 4
    assert await drain(service) == 0
    for table, rows in before.items():
        left, gone = await rows_of(owner, table), await archived(owner, table)
        assert left | set(gone) == rows
        assert len(left) + len(gone) == len(rows)
        assert gone
    assert list(tmp_path.rglob("*.part")) == []

    database = await open_database(service.settings, role=None, size=1)
    try:
        found = await restoring.list_partitions(database)
        gone_ones = [part for part in found if part.state == "archived"]
        assert {part.parent for part in gone_ones} == set(TABLES)
        for part in gone_ones:
            assert await restoring.restore(database, part.name, attach=True) == part.row_count
        for table, rows in before.items():
            assert await rows_of(owner, table) == rows
        assert await drain(service) == 0, "what a person brought back is not removed by a job"
        for part in gone_ones:
            await restoring.forget(database, part.name)
        for code, work in (
            ("not_restored", restoring.forget(database, gone_ones[0].name)),
            ("not_archived", restoring.restore(database, "webhook_attempts_rest", attach=True)),
            ("not_archived", restoring.restore(database, "entries", attach=True)),
        ):
            with pytest.raises(Refusal) as refused:
                await work
            assert refused.value.code == code
        # A damaged copy is not believed.
        full = max(gone_ones, key=lambda part: part.row_count or 0)
        path = Path(unquote(urlsplit(str(full.location)).path))
        good = path.read_bytes()
        lines = gzip.decompress(good)
        for bad in (
            good[:-9],
            good[:40] + bytes([good[40] ^ 255]) + good[41:],
            gzip.compress(lines + lines),
            b"",
            gzip.compress(b""),
        ):
            path.write_bytes(bad)
            with pytest.raises(Refusal, match="archive_damaged"):
                await restoring.restore(database, full.name, attach=False)
        path.write_bytes(good)
        assert await restoring.restore(database, full.name, attach=False) == full.row_count
        assert len(await rows_of(owner, full.name)) == full.row_count
        await restoring.forget(database, full.name)
        # A row that came late is in no archive: it is neither shown twice nor lost when the partition goes again.
        late = next(part for part in gone_ones if part.parent == "webhook_attempts")
        assert late.to_at is not None
        await owner.execute(
            "INSERT INTO webhook_attempts (delivery_id, at, latency_ms, excerpt) VALUES (gen_random_uuid(), $1, 1, '')",
            late.to_at - timedelta(seconds=1),
        )
        with pytest.raises(Refusal, match="rows_in_the_way"):
            await restoring.restore(database, late.name, attach=True)
        assert await restoring.restore(database, late.name, attach=False) == late.row_count
    finally:
        await database.close()


class Crash(BaseException):
    """The end of the process at some point."""


@pytest.mark.parametrize("point", ["uploading", "uploaded", "damaged", "described", "noted", "dropped"])
async def test_a_crash_between_two_steps_loses_nothing_and_is_gone_on_from(
    service: Service, owner: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    before = (await fill(service, owner))["webhook_attempts"]
    real_put, real_drop = Folder.put, keeping.drop

    async def put(self: Folder, name: str, chunks: AsyncIterator[bytes]) -> None:
        described = name.endswith(".json")
        if point == "uploading":
            chunks = _cut(chunks)
        if point == "damaged" and not described:
            chunks = _changed(chunks)
        await real_put(self, name, chunks)
        if (point == "uploaded" and not described) or (point == "described" and described):
            raise Crash

    async def drop(*arguments: Any, **options: Any) -> bool:
        if point == "dropped":
            await real_drop(*arguments, **options)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", put)
        if point in {"noted", "dropped"}:
            patch.setattr(keeping, "drop", drop)
        with pytest.raises((Crash, Refusal)):
            await drain(service)
        still = await owner.fetch(
            "SELECT name FROM partitions WHERE detached_at IS NOT NULL AND dropped_at IS NULL"
        )
        assert len(still) == (point != "dropped")
        kept = {row for part in still for row in await rows_of(owner, part["name"])}
        assert kept | await rows_of(owner, "webhook_attempts") | set(
            await archived(owner, "webhook_attempts")
        ) == (before)
    await drain(service)
    gone = await archived(owner, "webhook_attempts")
    assert len(gone) == len(set(gone))
    assert await rows_of(owner, "webhook_attempts") | set(gone) == before


async def _cut(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk[:10]
        raise Crash


async def _changed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk[:-1] + bytes([chunk[-1] ^ 1])
