"""Migrations over a database that is in use: no request fails, and no lock is taken that the plan does not tell."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core import migrations
from core.migrations import migrate, migration_files, plan, planned
from ops.embedded import EmbeddedServers
from tests.database.day import day_at, settings_of_day

pytestmark = pytest.mark.drill

Wait = Callable[..., Awaitable[Any]]

# The newest migration that the API of this code needs for a day; those after it are applied under load.
NEEDED = "0046"
# Beside them, what a version to come may want: a column of the hottest table, an index, a key to a table in use.
TO_COME = {
    "migrations/9996_column.sql": "-- online: yes, a default that no row is read for\n"
    "ALTER TABLE accounts ADD COLUMN to_come text NOT NULL DEFAULT '';",
    "migrations/9997_index.sql": "-- online: yes, it is built beside the traffic\n"
    "CREATE INDEX CONCURRENTLY entries_to_come ON entries (amount);",
    "migrations/9998_table.sql": "-- online: yes, its table is its own\n"
    "CREATE TABLE to_come (user_id uuid REFERENCES users, account bigint REFERENCES accounts);",
    "migrations/9999_check.sql": "-- online: yes, a check of new rows alone\n"
    "ALTER TABLE accounts ADD CONSTRAINT to_come CHECK (to_come <> 'x') NOT VALID;",
}
LONG_TRANSACTION_SECONDS = 4

_databases = itertools.count(1)


@pytest.fixture
async def empty(servers: EmbeddedServers) -> AsyncIterator[str]:
    """The URL of a database without any schema."""
    servers.postgres.start()
    admin = await asyncpg.connect(servers.postgres.url("postgres"))
    name = f"under_load_{next(_databases)}"
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.postgres.url(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_migrations_while_everything_goes_on(
    empty: str,
    redis_url: str,
    tmp_path: Path,
    eventually: Wait,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    files = migration_files()
    needed = {
        name: text
        for name, text in files.items()
        if name.startswith("functions/") or name.split("/")[1] < f"{NEEDED}~"
    }
    monkeypatch.setattr(migrations, "migration_files", lambda: needed)
    await migrate(empty)
    everything = dict(
        sorted({**files, **TO_COME}.items(), key=lambda item: (item[0].startswith("functions"), item[0]))
    )
    monkeypatch.setattr(migrations, "migration_files", lambda: everything)
    settings = settings_of_day(empty, redis_url, tmp_path)
    waited: list[str] = []
    # The new version's workers begin when the schema is there, as docs/migrations.md tells operators.
    async with day_at(settings, at_work=False) as day:
        await day.rounds(2)
        # Every function is made anew, too, as after a change of its text.
        await day.owner.execute("UPDATE schema_migrations SET checksum = '' WHERE name LIKE 'functions/%'")
        steps = await planned(empty)
        async with day.under_load():
            reading = asyncio.create_task(_read_long(empty))
            applied = await migrate(empty, on_wait=waited.append)
            await reading
            before = day.done
            await eventually(lambda: day.done > before + 20, timeout=30)
        assert day.errors == []
        day.begins_work.set()
        await day.settled(eventually)
        assert applied == [step.name for step in steps]
        assert {name for name in TO_COME if name in applied} == set(TO_COME)
        # The long reader was in the way of the column, which gave way to everybody else.
        assert waited
        assert set(waited) <= {"migrations/9996_column.sql"}
    record_property(
        "shown",
        f"{len(applied)} files under load: {day.done} requests and no error; gave way {len(waited)} times",
    )


async def _read_long(url: str) -> None:
    """Keep a table as a report does, for longer than any request waits for a lock."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE accounts IN ACCESS SHARE MODE")
            await connection.execute("SELECT pg_sleep($1)", LONG_TRANSACTION_SECONDS)
    finally:
        await connection.close()


async def test_locks_are_those_of_the_plan(empty: str) -> None:
    """PostgreSQL itself tells which locks each migration takes on tables that were there before."""
    owner, watcher = await asyncpg.connect(empty), await asyncpg.connect(empty)
    await owner.execute(migrations._BOOKKEEPING)
    wrong = {}
    for name, text in migration_files().items():
        if not name.startswith("migrations/"):
            continue
        if plan.is_concurrent(text):
            await owner.execute(text)
            continue
        async with owner.transaction():
            await owner.execute(text)
            rows = await watcher.fetch(
                """
                SELECT c.relname AS name, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
                WHERE l.pid = $1 AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                """,
                owner.get_server_pid(),
            )
        found: dict[str, int] = {}
        for row in rows:
            mode = " ".join(_words(row["mode"])).upper()
            if mode in plan.MODES[1:]:
                found[row["name"]] = max(found.get(row["name"], 0), plan.MODES.index(mode))
        told = {table: plan.MODES.index(mode) for table, mode in plan.locks(text).items()}
        # A dropped index locks its table, which the text does not name.
        indexes = any(table.startswith("index ") for table in told)
        more = {table: mode for table, mode in found.items() if told.get(table, -1) < mode}
        if more and not indexes:
            wrong[name] = more
    await owner.close()
    await watcher.close()
    assert wrong == {}


def _words(mode: str) -> list[str]:
    """Return the words of a mode as pg_locks writes it: AccessExclusiveLock."""
    text = "".join(f" {sign}" if sign.isupper() else sign for sign in mode.removesuffix("Lock"))
    return text.split()
