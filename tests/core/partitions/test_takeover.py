"""The tables of before become partitions with all their rows, where they are."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from core import migrations
from core.errors import Refusal
from core.migrations import migrate, migration_files
from ops.embedded import EmbeddedServers
from tests.core.partitions.aging import attempt, audited, rows_of

pytestmark = pytest.mark.fresh

TABLES = ("webhook_attempts", "audit_events")
FILES = "SELECT pg_relation_filenode($1::text::regclass)"


@pytest.fixture
async def before(servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of a database with the schema of before partitions."""
    servers.postgres.start()
    admin = await asyncpg.connect(servers.postgres.url("postgres"))
    await admin.execute("CREATE DATABASE before_partitions")
    with _known(monkeypatch, "0047"):
        await migrate(servers.postgres.url("before_partitions"))
    yield servers.postgres.url("before_partitions")
    await admin.execute("DROP DATABASE before_partitions WITH (FORCE)")
    await admin.close()


@contextmanager
def _known(monkeypatch: pytest.MonkeyPatch, before: str) -> Iterator[None]:
    """Let the project have the migrations below a number alone, and no functions."""
    files = {
        name: text
        for name, text in migration_files().items()
        if name.startswith("migrations/") and name.split("/")[1] < before
    }
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "migration_files", lambda: files)
        yield


async def test_rows_stay_where_they_are_and_writers_go_on(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, writer = await asyncpg.connect(before), await asyncpg.connect(before)
    await writer.execute("SET ROLE tallystick_serving")
    for days in (900, 31, 1, 0):
        await attempt(owner, days)
        await audited(owner, days)
    rows = {table: await rows_of(owner, table) for table in TABLES}
    files = {table: await owner.fetchval(FILES, table) for table in TABLES}

    # A writer with plans of its own writes between all steps, as one of the version before does.
    for step in ("0048", "0049", "0050"):
        with _known(monkeypatch, step):
            assert await migrate(before)
        await attempt(writer, 0)
        await audited(writer, 0)
    await migrate(before)
    await attempt(writer, 0)
    for table in TABLES:
        assert await owner.fetchval(FILES, f"{table}_first") == files[table], "nothing was copied"
        found = await rows_of(owner, table)
        assert rows[table] <= found
        assert len(found) == len(rows[table]) + (4 if table == "webhook_attempts" else 3)
        for rest in await owner.fetch("SELECT 1 FROM pg_index WHERE NOT indisvalid"):
            pytest.fail(f"an index is not valid: {rest}")
        ended = await owner.fetchval(
            "SELECT to_at > now() + interval '8 days' FROM partitions WHERE name = $1", f"{table}_first"
        )
        assert ended
        bounded = (
            "SELECT count(*) FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname LIKE '%_ends'"
        )
        assert await owner.fetchval(bounded, f"{table}_first") == 0
    await owner.close()
    await writer.close()


async def test_a_migration_that_finds_its_tables_busy_changes_nothing_and_is_repeated(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TRIES", 1)
    owner: Any = await asyncpg.connect(before)
    await attempt(owner, 3)
    for step in ("0048", "0049", "0050"):
        async with owner.transaction():
            await owner.execute("LOCK TABLE webhook_attempts IN SHARE UPDATE EXCLUSIVE MODE")
            with _known(monkeypatch, step), pytest.raises(Refusal, match="migration_busy"):
                await migrate(before)
            await attempt(owner, 2)
        with _known(monkeypatch, step):
            await migrate(before)
    assert len(await rows_of(owner, "webhook_attempts")) == 4
    await owner.close()
