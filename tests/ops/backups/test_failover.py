"""A standby takes over: every transfer that was answered is there, each once, when the primary has died under load."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from ops.embedded import Postgres
from ops.process import children_of, choose_port, python_environment
from tests.chaos.load import Load, Serving
from tests.ops.backups.books import asked
from tests.ops.backups.clusters import copied, server

pytestmark = pytest.mark.drill

Wait = Callable[..., Awaitable[Any]]
TRANSFERS = 600


@dataclass
class Pair:
    """A primary, and a standby whose word it waits for before a commit is answered."""

    primary: Postgres
    standby: Postgres

    @property
    def url(self) -> str:
        """Both addresses; a client takes whichever accepts writes."""
        server, _, database = self.primary.url().rpartition("/")
        return f"{server},127.0.0.1:{self.standby.port}/{database}?target_session_attrs=read-write"


@pytest.fixture
async def pair(state: Path, eventually: Wait) -> AsyncIterator[Pair]:
    with server(state / "primary", {}) as primary:
        await migrate(primary.url())
        copied(primary, state / "standby", "--write-recovery-conf")
        with server(state / "standby", {"cluster_name": "standby"}) as standby:
            await configured(primary.url("postgres"), "synchronous_standby_names", "standby")
            follows = "SELECT sync_state = 'sync' FROM pg_stat_replication"
            await eventually(lambda: asked(primary.url("postgres"), follows), timeout=30)
            yield Pair(primary, standby)


async def configured(url: str, name: str, value: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@asynccontextmanager
async def serving(url: str, redis_url: str, folder: Path, eventually: Wait) -> AsyncIterator[Serving]:
    """Two API processes that know both servers, and the clients that load them."""
    settings = load_settings(env_file=None, env="test", database_url=url, redis_url=redis_url)
    database = await open_database(settings, role=None, size=2)
    key, _ = await api_keys.create_key(database, "failover", ["transfers:write"])
    codes = ("cash", "a", "b", *(f"wide-{number}" for number in range(50)))
    await open_accounts(database, [Opening(code, "USD", Limits(floor=None)) for code in codes], 1)
    await database.close()
    port, log = choose_port(None), folder / "log"
    environment = {
        "ENV": "test", "APP_HOST": "127.0.0.1", "APP_PORT": str(port), "STATE_DIR": str(folder),
        "DATABASE_URL": url, "REDIS_URL": redis_url, "DATABASE_STATEMENT_TIMEOUT_MS": "700",
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is ended below
            [sys.executable, "-m", "ops.cli", "serve", "--workers", "2"],
            stdout=output, stderr=subprocess.STDOUT, env=python_environment(**environment), cwd=folder,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            load = Load(f"http://127.0.0.1:{port}", key, session)
            await eventually(lambda: ready(load), timeout=60)
            yield Serving(process, settings, load, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def ready(load: Load) -> bool:
    try:
        async with load.session.get(f"{load.url}/ready") as response:
            return response.status == 200
    except OSError:
        return False


async def test_nothing_answered_is_lost_when_the_primary_dies(
    pair: Pair, redis_url: str, tmp_path: Path, eventually: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(pair.url, redis_url, tmp_path, eventually) as running:
        load = running.load
        await nothing_is_answered_that_the_standby_lacks(pair, load)
        clients = asyncio.create_task(load.run(TRANSFERS))
        await eventually(lambda: load.done > TRANSFERS // 4, timeout=60)
        primary = pair.primary.pid
        assert primary is not None
        for pid in (primary, *children_of(primary)):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        await eventually(lambda: pair.primary.pid is None)
        answered, refused = dict(load.answers), load.statuses.get(503, 0)
        assert await asked(pair.standby.url("postgres"), "SELECT pg_promote()")
        promoted = time.monotonic()
        await eventually(lambda: load.done > len(answered), timeout=60)
        again = time.monotonic()
        await clients
        assert set(load.statuses) <= {201, 503}, load.refusals[:3]
        rows = "SELECT array_agg(reference) FROM transfers"
        there = set(await asked(pair.standby.url(), rows))
        lost = answered.keys() - there
        assert lost == set()
        # Those under way at the kill were repeated under their keys: none is there twice, and all records agree.
        survivor = running.settings.model_copy(
            update={"database_url": type(running.settings.database_url)(pair.standby.url())}
        )
        await Serving(running.process, survivor, load, running.log).check_books()
        await load.ask_again()
    with capsys.disabled():
        print(  # noqa: T201 - the figures of the drill
            f"\n{len(answered)} transfers answered before the primary was killed, {len(lost)} of them lost;"
            f" {load.statuses.get(503, 0) - refused} refusals until the standby served;"
            f" promoted after {promoted - killed:.1f} s, first answer after {again - killed:.1f} s;"
            f" {load.done} of {TRANSFERS + 1} done in the end, each once."
        )


async def nothing_is_answered_that_the_standby_lacks(pair: Pair, load: Load) -> None:
    """A time-out ends the wait for the standby, and what the primary alone has would look like done to a repetition.

    It does not: a repetition locks accounts, so its commit waits, too.
    """
    freeze(pair.standby, signal.SIGSTOP)
    assert not await load.send("load-0", 0)
    assert (load.statuses, load.unanswered) == ({503: 1}, 0)
    assert await asked(pair.primary.url(), "SELECT count(*) FROM transfers") == 1
    freeze(pair.standby, signal.SIGCONT)
    assert await load.send("load-0", 0)
    assert await asked(pair.standby.url(), "SELECT count(*) FROM transfers") == 1


def freeze(server_: Postgres, number: signal.Signals) -> None:
    assert server_.pid is not None
    for pid in (server_.pid, *children_of(server_.pid)):
        os.kill(pid, number)
