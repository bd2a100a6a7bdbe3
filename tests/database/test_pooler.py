"""A real PgBouncer in transaction mode before PostgreSQL: everything works, and no session is mixed up."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from core.database import SERVING_ROLE
from core.errors import Refusal
from core.service import open_service
from ops.embedded import EmbeddedServers
from ops.process import choose_port, spawn, stop
from tests.commands import tallystick
from tests.database.day import day_at, settings_of_day

LEFT_OUT = "the pooler: no pgbouncer is on the PATH or in /usr/sbin"
LOGIN, PASSWORD = "pooled", "a-password-of-the-pooler"
# Fewer sessions than one process has connections, so that sessions change hands all the time.
SESSIONS = 3
ROUNDS = 10
# The second number of the version from which on PgBouncer follows prepared statements from session to session.
KNOWS_PREPARED = 21

Wait = Callable[..., Awaitable[Any]]


def bouncer() -> str | None:
    """Return the pooler's program: that of TALLYSTICK_TEST_PGBOUNCER, or one of the system."""
    return os.environ.get("TALLYSTICK_TEST_PGBOUNCER") or shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"
    )


@asynccontextmanager
async def pooled(
    program: str, database_url: str, servers: EmbeddedServers, **options: str
) -> AsyncIterator[str]:
    """Run PgBouncer before the database, and yield the address at which LOGIN finds it."""
    port, there = choose_port(None), urlsplit(database_url)
    folder = Path(servers.postgres.home, f"pgbouncer-{port}")
    folder.mkdir()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": str(folder / "users"),
        "pool_mode": "transaction",
        "default_pool_size": str(SESSIONS),
    } | options
    lines = ["[databases]", f"* = host={there.hostname} port={there.port}", "[pgbouncer]"]
    (folder / "ini").write_text(
        "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items()), ""])
    )
    (folder / "users").write_text(f'"{LOGIN}" "{PASSWORD}"\n')
    account = servers.postgres.account
    for path in (folder, folder / "ini", folder / "users"):
        if account.uid is not None:
            os.chown(path, account.uid, account.gid or -1)
    with (folder / "log").open("wb") as log:
        process = spawn([program, str(folder / "ini")], output=log, account=account, directory=folder)
    try:
        url = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{port}{there.path}"
        for _ in range(200):
            try:
                await (await asyncpg.connect(url, statement_cache_size=0, timeout=5)).close()
                break
            except (OSError, asyncpg.PostgresError):
                assert process.poll() is None, (folder / "log").read_text()
                await asyncio.sleep(0.05)
        yield url
    finally:
        stop(process, (signal.SIGINT, 5.0))


@pytest.fixture
async def login(database_url: str) -> AsyncIterator[Any]:
    """A connection as the owner, while there is a login that owns nothing."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"DROP ROLE IF EXISTS {LOGIN}; CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")
    yield owner
    await owner.execute(f"DROP ROLE {LOGIN}")
    await owner.close()


@pytest.mark.drill
@pytest.mark.parametrize("prepared", [False, True], ids=["nothing prepared", "prepared statements kept"])
async def test_a_day_behind_the_pooler(
    *,
    prepared: bool,
    login: Any,
    database_url: str,
    redis_url: str,
    servers: EmbeddedServers,
    tmp_path: Path,
    eventually: Wait,
    record_property: Callable[[str, object], None],
) -> None:
    program = bouncer()
    if program is None:
        record_property("left_out", LEFT_OUT)
        return
    shown = await asyncio.to_thread(subprocess.check_output, [program, "--version"], text=True)
    version = shown.splitlines()[0]
    if prepared and int(version.split(".")[1]) < KNOWS_PREPARED:
        record_property("left_out", f"prepared statements through the pooler: {version} does not know them")
        return
    told = await tallystick("pooler", LOGIN)
    assert told.returncode == 0, told.stderr
    changes = {"database_direct_url": database_url, "database_pooler": "transaction"}
    changes |= {"database_prepared_statements": "true"} if prepared else {}
    options = {"max_prepared_statements": "200"} if prepared else {}
    async with pooled(program, database_url, servers, **options) as url:
        settings = settings_of_day(url, redis_url, tmp_path, **changes)
        # The login has no settings yet: that is told, and nothing is served.
        with pytest.raises(Refusal) as refused:
            async with open_service(settings):
                pass
        assert refused.value.code == "session_not_set"
    await login.execute(told.stdout)
    async with pooled(program, database_url, servers, **options) as url:
        settings = settings_of_day(url, redis_url, tmp_path, **changes)
        async with day_at(settings) as day:
            await day.rounds(ROUNDS)
            assert day.errors == []
            await day.settled(eventually)
            assert (await day.api.get("/ready")).status == 200
            sessions = await login.fetch("SELECT pid FROM pg_stat_activity WHERE usename = $1", LOGIN)
            assert 0 < len(sessions) <= SESSIONS
            await _check_sessions(url)
    record_property("shown", f"{version}: {day.done} requests and no error over {len(sessions)} sessions")


async def _check_sessions(url: str) -> None:
    """Assert that each session of the pooler is as it was when it began."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    for _ in range(4 * SESSIONS):
        row = await connection.fetchrow(
            "SELECT current_user AS role, current_setting('enable_seqscan') AS scan,"
            " current_setting('jit') AS jit, current_setting('search_path') AS path,"
            " current_setting('lock_timeout') AS lock"
        )
        assert row is not None
        assert tuple(row) == (SERVING_ROLE, "off", "off", '"$user", public', "2s")
    await connection.close()
