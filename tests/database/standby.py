"""A streaming standby of the tests' PostgreSQL, from the same programs."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from ops.embedded import Postgres
from ops.embedded.postgres import USER
from ops.process import choose_port, spawn, stop

READY_TRIES = 400
POLL_SECONDS = 0.05


class Standby:
    """The standby: it can be killed and started, can stop replaying, and can become a primary."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        self.port = choose_port(None)
        self.home = Path(primary.home, f"standby-{self.port}")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Return the DSN of one database, password included."""
        return self._primary.url(database).replace(f":{self._primary.port}/", f":{self.port}/")

    async def create(self) -> None:
        """Copy the primary."""
        self.home.mkdir()
        self._primary._own(self.home)
        await self._run(
            "pg_basebackup", "-D", str(self.home / "data"), "-R", "-c", "fast", "-h", "127.0.0.1",
            "-p", str(self._primary.port), "-U", USER,
        )  # fmt: skip

    async def start(self) -> None:
        """Start it and wait until it lets readers in."""
        command = [
            str(self._primary.program.path), "-D", str(self.home / "data"), "-p", str(self.port),
            *("--unix_socket_directories=", "--listen_addresses=127.0.0.1", "--max_connections=200", "--fsync=off"),
            # A reader that holds up the replay is told to go at once.
            "--max_standby_streaming_delay=500ms",
        ]  # fmt: skip
        with (self.home / "log").open("ab") as log:
            self._process = spawn(
                command, output=log, account=self._primary.account, directory=self.home, death_signal=signal.SIGINT,
                environment=dict(self._primary.environment),
            )  # fmt: skip
        for _ in range(READY_TRIES):
            try:
                await self.do("SELECT 1")
                return
            except (OSError, asyncpg.PostgresError):
                assert self._process.poll() is None, (self.home / "log").read_text()[-2000:]
                await asyncio.sleep(POLL_SECONDS)
        raise AssertionError((self.home / "log").read_text()[-2000:])

    async def do(self, statement: str) -> Any:
        """Run a statement as the superuser and return its value."""
        connection = await asyncpg.connect(self.url("postgres"), timeout=5)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            stop(self._process, (signal.SIGQUIT, 10.0))
            self._process = None

    async def _run(self, program: str, *arguments: str) -> None:
        child = spawn(
            [str(self._primary.program.path.with_name(program)), *arguments],
            output=subprocess.PIPE,
            account=self._primary.account,
            directory=self.home,
            environment={**self._primary.environment, "PGPASSWORD": self._primary.password},
        )
        output, _ = await asyncio.to_thread(child.communicate)
        assert child.returncode == 0, output.decode()


@asynccontextmanager
async def standby_of(primary: Postgres) -> AsyncIterator[Standby]:
    """Make a standby, start it, and remove it at the end."""
    standby = Standby(primary)
    try:
        await standby.create()
        await standby.start()
        yield standby
    finally:
        standby.kill()
        shutil.rmtree(standby.home, ignore_errors=True)
