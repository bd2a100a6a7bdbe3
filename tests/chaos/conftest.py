"""Servers and processes that these tests may kill: their own, so that no other test notices."""

import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from core.access import api_keys
from core.database import open_database
from core.ledger.accounts import Limits, Opening, open_accounts
from core.migrations import migrate
from core.settings import load_settings
from ops.embedded import embedded_servers
from ops.process import choose_port, python_environment
from tests.chaos.load import Load, Serving, Stand
from tests.copies import in_memory

# As in the tests' other servers: a kill of a process, which is what is tested, loses nothing without fsync either.
POSTGRES_OPTIONS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}

PREPARED = "chaos_prepared"

_databases = itertools.count(1)

Wait = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    folder = Path(tempfile.mkdtemp(prefix="tallystick-chaos-", dir=in_memory()))
    folder.chmod(0o755)
    context = embedded_servers(folder, postgres_options=POSTGRES_OPTIONS)
    with ThreadPoolExecutor(1) as thread:
        servers = thread.submit(context.__enter__).result()
        try:
            yield Stand(servers, thread)
        finally:
            thread.submit(context.__exit__, None, None, None).result()
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def prepared(stand: Stand) -> str:
    """The key to a database of the stand that has the schema and the accounts, for others to be copied from."""
    await _administer(stand, f"CREATE DATABASE {PREPARED}")
    settings = load_settings(
        env_file=None, env="test", database_url=stand.postgres.url(PREPARED), redis_url=stand.valkey.url()
    )
    await migrate(str(settings.database_url))
    database = await open_database(settings, role=None, size=2)
    try:
        key, _ = await api_keys.create_key(database, "chaos", ["transfers:write"])
        limits = Limits(floor=None)
        codes = ("cash", "a", "b", *(f"wide-{number}" for number in range(50)))
        await open_accounts(database, [Opening(code, "USD", limits) for code in codes], 1)
    finally:
        await database.close()
    return key


@pytest.fixture
async def serving(stand: Stand, prepared: str, tmp_path: Path, eventually: Wait) -> AsyncIterator[Serving]:
    """Two API processes on a fresh database, ready to be loaded."""
    number = next(_databases)
    name = f"chaos_{number}"
    await stand.do(stand.postgres.start)
    await stand.do(stand.valkey.start)
    # Copies share the marks of their template, so each has a Redis of its own.
    settings = load_settings(
        env_file=None, env="test", database_url=stand.postgres.url(name), redis_url=stand.valkey.url(number)
    )
    await _administer(stand, f"CREATE DATABASE {name} TEMPLATE {PREPARED} STRATEGY file_copy")
    port, log = choose_port(None), tmp_path / "log"
    environment = {
        "ENV": "test", "APP_HOST": "127.0.0.1", "APP_PORT": str(port), "STATE_DIR": str(tmp_path),
        "DATABASE_URL": str(settings.database_url), "REDIS_URL": str(settings.redis_url),
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - its signals and its end are what is tested
            [sys.executable, "-m", "ops.cli", "serve", "--workers", "2"],
            stdout=output, stderr=subprocess.STDOUT, env=python_environment(**environment), cwd=tmp_path,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            load = Load(f"http://127.0.0.1:{port}", prepared, session)
            await eventually(lambda: _ready(load), timeout=60)
            yield Serving(process, settings, load, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


async def _administer(stand: Stand, statement: str) -> None:
    admin = await asyncpg.connect(stand.postgres.url("postgres"))
    await admin.execute(statement)
    await admin.close()


async def _ready(load: Load) -> bool:
    try:
        async with load.session.get(f"{load.url}/ready") as response:
            return response.status == 200
    except OSError:
        return False
