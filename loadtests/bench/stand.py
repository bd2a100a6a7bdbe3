"""The stand on which a run is made: embedded servers, databases, and the processes beside them."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import asyncpg

from loadtests.bench import machine
from loadtests.bench.clients.workload import Caller
from loadtests.bench.plan import Plan
from loadtests.bench.subject import Connection, Subject
from ops.embedded import embedded_servers
from ops.process import PROJECT, choose_port, open_log, spawn, stop

HOST = "127.0.0.1"
READY_SECONDS = 60
SETTLE_SECONDS = 600
POLL_SECONDS = 0.05
#: A process of ours has so many seconds to end in good order before it is killed.
STOP_SECONDS = 15
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "PYTHONPATH")


class StandError(Exception):
    """A part that the run needs did not come up; the text names it and its log."""


class Sample(NamedTuple):
    """One real answer, which the bare handler then imitates."""

    status: int
    content_type: str
    body: bytes


class Stand:
    """Servers and processes of a run, in a state folder of its own. An async context manager; its end stops all."""

    def __init__(
        self,
        plan: Plan,
        subject: Subject,
        *,
        parent: Path,
        say: Callable[[str], None],
        postgres_options: Mapping[str, str] | None = None,
    ) -> None:
        """`parent` is where a temporary state folder is made; `plan.state` replaces it and is kept."""
        self.plan = plan
        self.subject = subject
        self.say = say
        self.token = ""
        self._postgres_options = postgres_options
        self._temporary = plan.state is None
        if plan.state is None:
            parent.mkdir(parents=True, exist_ok=True)
            self.state = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
            # The servers' user must be able to enter what root made.
            self.state.chmod(0o755)
        else:
            self.state = plan.state.resolve()
            self.state.mkdir(parents=True, exist_ok=True)
        self.filesystem = machine.filesystem(self.state)
        self._servers = contextlib.ExitStack()
        self._redis_numbers: dict[str, int] = {}
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}

    async def __aenter__(self) -> Self:
        try:
            servers = self._servers.enter_context(
                embedded_servers(self.state, postgres_options=self._postgres_options, say=self.say)
            )
        except BaseException:
            self._close()
            raise
        self.postgres, self.valkey = servers.postgres, servers.valkey
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._servers.close()
        if self._temporary:
            shutil.rmtree(self.state, ignore_errors=True)

    @property
    def kept(self) -> bool:
        """Whether the state folder stays for another run."""
        return not self._temporary

    @property
    def pgbench(self) -> Path | None:
        """The pgbench that came with the server, None where the system's package leaves it out."""
        beside = self.postgres.program.path.with_name("pgbench")
        found = beside if beside.exists() else shutil.which("pgbench")
        return Path(found) if found else None

    def roles(self) -> Mapping[str, Sequence[int]]:
        """The process trees that run now, by what they are."""
        servers = {"postgres": self.postgres.pid, "valkey": self.valkey.pid}
        found = {name: [pid] for name, pid in servers.items() if pid is not None}
        return found | {
            name: [process.pid for process in running] for name, running in self._running.items() if running
        }

    # Databases

    async def execute(self, database: str, *statements: str) -> None:
        """Runs statements that cannot stand in a transaction, one by one."""
        async with self.connect(database) as connection:
            for statement in statements:
                await connection.execute(statement, timeout=SETTLE_SECONDS)

    @contextlib.asynccontextmanager
    async def connect(self, database: str) -> AsyncIterator[Connection]:
        """A connection with the owner's rights."""
        connection: Connection = await asyncpg.connect(self.postgres.url(database))
        try:
            yield connection
        finally:
            await connection.close(timeout=STOP_SECONDS)

    async def databases(self) -> set[str]:
        """The databases that exist."""
        async with self.connect("postgres") as connection:
            return {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Makes a database anew, empty or as a copy, and returns its URL. The names are ours, never a user's."""
        source = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
        await self.execute(
            "postgres", f'DROP DATABASE IF EXISTS "{name}" (FORCE)', f'CREATE DATABASE "{name}"{source}'
        )
        return self.postgres.url(name)

    async def wait_settled(self, database: str) -> None:
        """Waits until the background work on what was posted is done; raises StandError after ten minutes."""
        url = self.postgres.url(database)
        if not await wait_until(lambda: self.subject.settled(url), SETTLE_SECONDS):
            raise StandError(f"the background work on {database} did not end")

    async def tidy(self, database: str) -> None:
        """Leaves the tables as autovacuum and a checkpoint would, so that neither falls into the first measurement."""
        await self.execute(database, "VACUUM (ANALYZE)", "CHECKPOINT")

    def redis_url(self, database: str) -> str:
        """The logical Redis database that belongs to a database: copies of one database must not share marks."""
        number = self._redis_numbers.setdefault(database, len(self._redis_numbers))
        return self.valkey.url(number)

    # Processes

    @contextlib.asynccontextmanager
    async def api(
        self, database: str, *, processes: int = 1, worker: bool = True, provider: str = ""
    ) -> AsyncIterator[Caller]:
        """Serves a database: the API with so many processes, and the worker. Yields who calls it, once it is ready.

        `provider` is the address of the simulator that payments go to.
        """
        port = choose_port(None)
        settings = {
            **self.subject.environment(self.postgres.url(database), self.redis_url(database), port),
            **({"SIMULATOR_URL": provider} if provider else {}),
        }
        with contextlib.ExitStack() as stack:
            api = stack.enter_context(self._process("api", self.subject.api_command(processes), settings))
            if worker and (command := self.subject.worker_command()) is not None:
                stack.enter_context(self._process("worker", command, settings))
            caller = Caller(host=HOST, port=port, token=self.token, accounts=self.plan.accounts)
            await self._wait_ready(caller, api)
            yield caller

    @contextlib.contextmanager
    def workers(self, database: str, count: int = 1) -> Iterator[None]:
        """Runs so many workers on a database whose API runs without one. They may take a second or two to begin."""
        settings = self.subject.environment(
            self.postgres.url(database), self.redis_url(database), choose_port(None)
        )
        command = self.subject.worker_command()
        with contextlib.ExitStack() as stack:
            for _ in range(count if command else 0):
                stack.enter_context(self._process("worker", command or (), settings))
            yield

    @contextlib.asynccontextmanager
    async def floor(self, sample: Sample) -> AsyncIterator[Caller]:
        """Serves floor 1 with an answer like the sample."""
        body = self.state / "floor-answer"
        body.write_bytes(sample.body)
        port = choose_port(None)
        command = [sys.executable, "-m", "loadtests.bench.floor", f"--port={port}", f"--body={body}"]
        command += [f"--status={sample.status}", f"--content-type={sample.content_type}"]
        with self._process("floor1", command, {}) as process:
            caller = Caller(host=HOST, port=port, token=self.token, accounts=self.plan.accounts)
            # The floor gives its one answer to every request, be it a refusal.
            await self._wait_ready(caller, process, status=sample.status)
            yield caller

    @contextlib.asynccontextmanager
    async def provider(self) -> AsyncIterator[str]:
        """Runs a simulator of a payment provider. Yields its address."""
        port = choose_port(None)
        command = [sys.executable, "-m", "ops.cli", "simulator", f"--port={port}"]
        with self._process("provider", command, {}) as process:
            await self._wait_ready(Caller(host=HOST, port=port, token="", accounts=0), process, status=404)
            yield f"http://{HOST}:{port}"

    @contextlib.asynccontextmanager
    async def receiver(self) -> AsyncIterator[Caller]:
        """Runs a receiver of deliveries."""
        port = choose_port(None)
        command = [sys.executable, "-m", "loadtests.bench.clients.receiver", f"--port={port}"]
        with self._process("receiver", command, {}) as process:
            caller = Caller(host=HOST, port=port, token="", accounts=0)
            await self._wait_ready(caller, process)
            yield caller

    @contextlib.contextmanager
    def _process(
        self, role: str, command: Sequence[str], settings: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        log = self.state / "logs" / f"{role}.log"
        with open_log(log) as output:
            # The process starts in the state folder, so that it reads no `.env`.
            environment = child_environment(settings)
            process = spawn(command, output=output, directory=self.state, environment=environment)
        running = self._running.setdefault(role, [])
        running.append(process)
        try:
            yield process
        finally:
            stop_process(process)
            running.remove(process)

    async def _wait_ready(
        self, caller: Caller, process: subprocess.Popen[bytes], *, status: int = 200
    ) -> None:
        async def ready() -> bool:
            if process.poll() is not None:
                raise StandError(
                    f"a process ended with exit code {process.returncode} at its start{self._log_tails()}"
                )
            try:
                return (await fetch(caller, "GET", "/ready")).status == status
            except aiohttp.ClientConnectionError:
                return False

        if not await wait_until(ready, READY_SECONDS):
            raise StandError(f"a process was not ready after {READY_SECONDS} s{self._log_tails()}")

    def _log_tails(self) -> str:
        logs = [self.state / "logs" / f"{role}.log" for role in self._running]
        return "".join(
            f"\n{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs if log.exists()
        )


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of ours: these settings, and none that somebody has set around us."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    paths = os.pathsep.join([str(PROJECT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, **settings, "PYTHONPATH": paths}


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Ends one process of ours in good order, or by force where that takes too long."""
    stop(process, (signal.SIGTERM, STOP_SECONDS))


async def fetch(caller: Caller, method: str, path: str, body: bytes | None = None, **headers: str) -> Sample:
    """One request with the caller's key, outside any measurement."""
    timeout = aiohttp.ClientTimeout(total=30)
    headers = {"Authorization": f"Bearer {caller.token}", "Content-Type": "application/json", **headers}
    url = f"http://{caller.host}:{caller.port}{path}"
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, url, data=body, headers=headers) as answer,
    ):
        return Sample(answer.status, answer.content_type, await answer.read())


async def wait_until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Polls an async condition until it holds; False when it did not in time."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if await condition():
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False
