"""A backup of a busy service, restored: the same books, a new epoch, and readers who are told where to go on."""

import asyncio
import itertools
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.ledger.sealing import seal_once
from core.service import Service, open_service
from core.settings import Settings
from handlers.app import create_app
from ops.embedded import EmbeddedServers
from ops.process import python_environment
from tests.commands import tallystick
from tests.conftest import Administer
from tests.ops.backups.books import asked, open_books, post, seal

pytestmark = pytest.mark.drill

_databases = itertools.count(1)
Key = Callable[..., Awaitable[str]]


@pytest.fixture
async def empty(servers: EmbeddedServers, administer: Administer) -> AsyncIterator[str]:
    """Return the address of a database without anything."""
    name = f"restored_{next(_databases)}"
    await administer(f"CREATE DATABASE {name}")
    yield servers.postgres.url(name)
    await administer(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def traffic(service: Service) -> AsyncIterator[list[int]]:
    """Post and seal for the length of the block; the value counts what was posted."""
    posted = [0]
    stopped = asyncio.Event()

    async def go_on() -> None:
        while not stopped.is_set():
            await post(service, posted[0])
            posted[0] += 1
            await seal_once(service.database)

    busy = asyncio.create_task(go_on())
    yield posted
    stopped.set()
    await busy
    await post(service, posted[0])  # so that something is lost in each run
    await seal(service)


async def test_a_busy_service_is_backed_up_and_restored(
    settings: Settings, service: Service, empty: str, tmp_path: Path, api_key: Key
) -> None:
    await open_books(service)
    key = await api_key()
    place, url = tmp_path / "backups", str(settings.database_url)
    async with traffic(service) as posted:
        taken = await tallystick("backup", "--to", str(place), "--json", DATABASE_URL=url)
        during = posted[0]
    assert taken.returncode == 0, taken.stderr
    manifest = json.loads(taken.stdout)
    name, picture = manifest["name"], manifest["picture"]
    assert 0 < picture["rows"]["transfers"] <= during
    assert sorted(path.name for path in place.iterdir()) == [f"{name}.dump", f"{name}.json"]
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert await asked(url, "SELECT name FROM backups") == name

    done = await tallystick("restore", f"{place}/{name}", "--into", empty, "-j", "2")
    assert done.returncode == 0, done.stderr + done.stdout
    epoch = await asked(empty, "SELECT epoch FROM epochs ORDER BY started_at DESC LIMIT 1")
    assert f"Epoch {epoch} begins behind position {picture['position']:,}." in done.stdout
    # The books are those of the moment, whatever came after it.
    assert await asked(empty, "SELECT count(*) FROM transfers") == picture["rows"]["transfers"]
    balance = "SELECT balance FROM accounts WHERE code = 'shop'"
    assert await asked(empty, balance) == picture["rows"]["transfers"] < await asked(url, balance)
    assert (await tallystick("verify", DATABASE_URL=empty)).returncode == 0

    lost = await asked(url, "SELECT position FROM feed_head")
    after = settings.model_copy(update={"database_url": type(settings.database_url)(empty)})
    await readers_are_told(after, key, service.epoch, picture["position"], lost)
    await no_database_in_use_is_touched(empty, f"{place}/{name}")


async def readers_are_told(settings: Settings, key: str, old: str, shared: int, lost: int) -> None:
    assert lost > shared
    async with (
        open_service(settings) as service,
        TestClient(TestServer(create_app(settings, service))) as client,
    ):
        assert service.epoch != old

        async def read(**query: Any) -> tuple[int, dict[str, Any]]:
            answer = await client.get("/v1/feed", params=query, headers={"Authorization": f"Bearer {key}"})
            return answer.status, await answer.json()

        for query in ({"after": lost, "epoch": old}, {"after": lost}, {"after": 1, "epoch": "stranger"}):
            status, told = await read(**query)
            assert (status, told["error"]["code"], told["epoch"]) == (
                409,
                "epoch_changed",
                service.epoch,
            )
            assert told["position"] == (0 if query.get("epoch") == "stranger" else shared)
        status, page = await read(after=shared, epoch=old)
        assert (status, page["data"], page["epoch"]) == (200, [], service.epoch)
        # The keys of the lost part are free again, and the feed goes on where the histories part.
        await post(service, lost)
        await seal(service)
        assert (await read(after=shared, epoch=service.epoch))[1]["data"][0]["position"] == shared + 1


async def no_database_in_use_is_touched(full: str, backup: str) -> None:
    refused = await tallystick("restore", backup, "--into", full)
    assert (refused.returncode, "The database is not empty." in refused.stderr) == (1, True)
    replaced = await tallystick("restore", backup, "--into", full, "--replace")
    assert replaced.returncode == 0, replaced.stderr
    (aside,) = re.findall(r"kept as (replaced_\w+)", replaced.stdout)
    for schema in (aside, "public"):
        assert await asked(full, f"SELECT count(*) FROM {schema}.epochs") == 2  # noqa: S608 - the name is ours


async def test_a_half_is_never_taken_for_a_whole(
    settings: Settings, service: Service, empty: str, tmp_path: Path
) -> None:
    await open_books(service)
    await post(service, 1)
    place, url = tmp_path / "backups", str(settings.database_url)
    taken = await tallystick("backup", "--to", str(place), "--json", DATABASE_URL=url)
    name = json.loads(taken.stdout)["name"]
    dump = place / f"{name}.dump"
    whole = dump.read_bytes()

    for content, sentence in (
        (whole[:-1], "bytes in place of"),
        (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "the SHA-256 of its dump is another one"),
    ):
        dump.write_bytes(content)
        for command in (("backup", "check"), ("restore", "--into", empty)):
            refused = await tallystick(*command, f"{place}/{name}")
            assert (refused.returncode, sentence in refused.stderr) == (1, True), refused.stderr
    assert await asked(empty, "SELECT to_regclass('accounts') IS NULL")
    # A manifest that somebody has made fit another dump is found out by the numbers, and the service stays out.
    dump.write_bytes(whole)
    manifest = (place / f"{name}.json").read_text()
    (place / f"{name}.json").write_text(manifest.replace('"transfers": 1', '"transfers": 2'))
    refused = await tallystick("restore", f"{place}/{name}", "--into", empty)
    assert (refused.returncode, "has 1 rows in place of 2" in refused.stderr) == (1, True), refused.stderr
    opened = await tallystick("verify", DATABASE_URL=empty)
    assert (opened.returncode, "tallystick migrate" in opened.stderr) == (1, True), opened.stderr


@pytest.mark.parametrize(("number", "left"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)])
async def test_a_run_that_is_broken_off_leaves_no_backup(
    settings: Settings,
    service: Service,
    tmp_path: Path,
    eventually: Any,
    nothing_runs_on: Any,
    number: signal.Signals,
    left: int,
) -> None:
    await open_books(service)
    place, url = tmp_path / "backups", str(settings.database_url)
    lock = await asyncpg.connect(url)
    async with lock.transaction():
        await lock.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "backup", "--to", str(place)),
            env=python_environment(DATABASE_URL=url),
            stderr=asyncio.subprocess.PIPE,
        )
        waiting = "SELECT count(*) >= 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        # Both wait for the lock: pg_dump, and the session that counts.
        await eventually(lambda: asked(url, waiting), timeout=60)
        assert [path.suffix for path in place.iterdir()] == [".part"]
        run.send_signal(number)
        await run.communicate()
        await nothing_runs_on(place)
    await lock.close()
    assert len(list(place.iterdir())) == left
    listed = await tallystick("backup", "list", "--from", str(place))
    assert (listed.returncode, listed.stdout) == (0, f"No backup in {place}.\n")
