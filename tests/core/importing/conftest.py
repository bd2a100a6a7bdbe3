"""A database of the owner, and sources in each dialect that needs no server of its own."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.database import Database, open_database
from core.importing.running import Result, Run, Step
from core.importing.sources import open_source
from core.settings import Settings
from ops.embedded import EmbeddedServers
from tests.core.importing.olddb import Rows, fill_mysql, fill_postgres, fill_sqlite

Fill = Callable[[Mapping[str, str], Rows], Awaitable[str]]


@pytest.fixture
async def target(settings: Settings) -> AsyncIterator[Database]:
    """The database of the service, as its owner."""
    database = await open_database(settings, role=None, size=2)
    yield database
    await database.close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The settings of a service that has a key for secrets."""
    return settings.model_copy(update={"secrets_keys": ("a key of thirty-two characters ...",)})


# The address of a MySQL or MariaDB server that may be written to: mysql://user@host:port. Without one it is left out.
MYSQL = os.environ.get("TALLYSTICK_TEST_MYSQL", "")


@pytest.fixture(params=["sqlite", "postgresql", *(["mysql"] if MYSQL else [])])
async def fill(
    request: pytest.FixtureRequest, servers: EmbeddedServers, tmp_path: Path
) -> AsyncIterator[Fill]:
    """A function that makes a source out of tables and rows."""
    made: list[str] = []

    async def make(tables: Mapping[str, str], rows: Rows) -> str:
        name = f"old_{os.getpid()}_{len(made)}"
        made.append(name)
        if request.param == "sqlite":
            return fill_sqlite(tmp_path / f"{name}.db", tables, rows)
        if request.param == "mysql":
            return await asyncio.to_thread(fill_mysql, MYSQL, name, tables, rows)
        admin = await asyncpg.connect(servers.postgres.url("postgres"))
        try:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.execute(f"CREATE DATABASE {name}")
        finally:
            await admin.close()
        return await fill_postgres(servers.postgres.url(name), tables, rows)

    yield make
    if request.param == "postgresql":
        admin = await asyncpg.connect(servers.postgres.url("postgres"))
        for name in made:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


async def carry_over(
    target: Database, settings: Settings, service: str, steps: tuple[Step, ...], url: str, **more: Any
) -> Result:
    """Run an import."""
    async with open_source(url) as source:
        return await Run(target, settings, service, steps, **more).run(source)


def counts(result: Result) -> dict[str, tuple[int, int, int]]:
    """Return the new, known and refused rows of each step that had any."""
    return {step.step: (step.new, step.known, step.refused) for step in result.steps if step.read}


async def values(target: Database, statement: str, *args: Any) -> list[tuple[Any, ...]]:
    """Return rows of the service's database."""
    async with target.connections.pool.acquire() as connection:
        return [tuple(row) for row in await connection.fetch(statement, *args)]
