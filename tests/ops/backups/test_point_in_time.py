"""Recovery to a moment: a base backup and the archived log bring back the state before a mistake."""

import shutil
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from core.migrations import migrate
from core.service import open_service
from core.settings import load_settings
from ops.process import PROJECT
from tests.commands import tallystick
from tests.ops.backups.books import asked, open_books, post, seal
from tests.ops.backups.clusters import copied, owned, server

pytestmark = pytest.mark.drill

SCRIPT = PROJECT / "ops" / "backups" / "archive-wal"
BEFORE, BETWEEN, AFTER = 5, 20, 7


async def test_the_moment_before_a_mistake_comes_back(state: Path, redis_url: str, eventually: Any) -> None:
    archive, script = state / "archive", state / "archive-wal"
    archive.mkdir()
    shutil.copy(SCRIPT, script)
    archiving = {"archive_mode": "on", "archive_command": f"{script} %p %f {archive}"}
    primary = server(state / "primary", archiving)
    owned(primary, archive)
    with primary:
        url = primary.url()
        await migrate(url)
        settings = load_settings(env_file=None, env="test", database_url=url, redis_url=redis_url)
        async with open_service(settings) as service:
            old = service.epoch
            await open_books(service)
            for number in range(BEFORE):
                await post(service, number)
            copied(primary, state / "recovered")
            for number in range(BETWEEN):
                await post(service, BEFORE + number)
            await seal(service)
            position = await asked(url, "SELECT position FROM feed_head")
            moment = await asked(url, "SELECT clock_timestamp()::text")
            # The mistake, and work that goes on until somebody sees it.
            await asked(url, "UPDATE accounts SET balance = 0 WHERE code = 'shop'")
            for number in range(AFTER):
                await post(service, BEFORE + BETWEEN + number)
        assert (await tallystick("verify", DATABASE_URL=url)).returncode == 1
        await last_segment_is_archived(url, eventually)
        primary.kill()

    (state / "recovered" / primary.home.name / "data" / "recovery.signal").touch()
    recovering = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": moment,
        "recovery_target_action": "promote",
    }
    with server(state / "recovered", recovering) as second:
        await eventually(lambda: asked(second.url(), "SELECT NOT pg_is_in_recovery()"), timeout=30)
        said = await tallystick("recovered", "--reason", f"before {moment}", DATABASE_URL=second.url())
        assert said.returncode == 0, said.stderr
        assert f"begins behind position {position:,}." in said.stdout
        assert await asked(second.url(), "SELECT count(*) FROM transfers") == BEFORE + BETWEEN
        assert (
            await asked(second.url(), "SELECT balance FROM accounts WHERE code = 'shop'") == BEFORE + BETWEEN
        )
        restored = load_settings(env_file=None, env="test", database_url=second.url(), redis_url=redis_url)
        async with open_service(restored) as service:
            assert service.epoch != old
            assert service.epoch in said.stdout
            in_use = await tallystick("recovered", "--reason", "again", DATABASE_URL=second.url())
            assert (in_use.returncode, "Stop the service first" in in_use.stderr) == (1, True)


async def last_segment_is_archived(url: str, eventually: Any) -> None:
    name = await asked(url, "SELECT pg_walfile_name(pg_switch_wal())")
    last = "SELECT last_archived_wal FROM pg_stat_archiver"
    await eventually(lambda: is_behind(name, asked(url, last)), timeout=30)


async def is_behind(name: str, last: Awaitable[str | None]) -> bool:
    return (await last or "") >= name


def test_a_segment_is_archived_once_and_never_changed(tmp_path: Path) -> None:
    archive, segment = tmp_path / "archive", tmp_path / "segment"
    archive.mkdir()
    for content, code, sentence in ((b"one", 0, ""), (b"one", 0, ""), (b"two", 1, "with other content")):
        segment.write_bytes(content)
        command = [str(path) for path in (SCRIPT, segment, "0001", archive)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert [(path.name, path.read_bytes()) for path in archive.iterdir()] == [("0001", b"one")]
