"""The stage of a run: both servers, `tallystick serve`, two workers and a receiver, each of which may be killed."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg
import msgspec

from core.access.api_keys import SCOPES, create_key
from core.database import open_database
from core.migrations import migrate
from core.settings import load_settings
from loadtests.bench.machine import process_table, tree
from loadtests.bench.stand import HOST, StandError, child_environment, wait_until
from loadtests.bench.subject import Connection
from loadtests.chaos.plan import SHOPS
from loadtests.chaos.provider import CURRENCY, SECRET, shop_account
from loadtests.chaos.receiver import Line, read_lines
from ops.embedded import EmbeddedServers, embedded_servers
from ops.process import StartError, choose_port, command_line_of, open_log, spawn, stop

API_PROCESSES = 2
WORKERS = 2
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
#: How often somebody looks whether a process has ended, as a service manager would.
LOOK_SECONDS = 0.1
PYTHON = (sys.executable, "-m")
CLEARING_ACCOUNT = f"provider:stripe:clearing:{CURRENCY}"


class Member:
    """One process that is started again whenever it ends, unless somebody holds it down."""

    def __init__(
        self, name: str, command: Sequence[str], settings: Mapping[str, str], folder: Path, feed: bytes = b""
    ) -> None:
        self.name = name
        self.held = False
        self.ends = 0
        self._command = command
        self._environment = child_environment(settings)
        self._folder = folder
        self._feed = feed
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self) -> None:
        """Start it; called on one that runs, it does nothing."""
        if self.pid is not None:
            return
        with open_log(self._folder / "logs" / f"{self.name}.log") as output:
            self._process = spawn(
                self._command,
                output=output,
                directory=self._folder,
                environment=self._environment,
                stdin=subprocess.PIPE if self._feed else subprocess.DEVNULL,
            )
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(self._feed)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it in good order, or by force where that takes too long."""
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, STOP_SECONDS))

    def revive(self) -> None:
        """Start it again if it has ended without anybody asking for it."""
        if not self.held and self.pid is None:
            self.ends += 1
            self.start()


class Stage:
    """Everything that runs, from the start of the servers to their end. An async context manager."""

    def __init__(
        self,
        seed: int,
        *,
        parent: Path,
        say: Callable[[str], None],
        postgres_options: Mapping[str, str] | None = None,
    ) -> None:
        """`parent` is where the state folder is made; it goes with the stage."""
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=parent))
        # The servers' user must be able to enter what root made.
        self.folder.chmod(0o755)
        self._seed = seed
        self.keep = False
        """Whether the state folder stays, for somebody to look into."""
        self._context = self._servers(postgres_options, say)
        # The servers end with the thread that started them.
        self._thread = ThreadPoolExecutor(1)
        self._read_to = 0
        self._lines: list[Line] = []
        self._keeper: asyncio.Task[None] | None = None
        self.members: list[Member] = []

    async def __aenter__(self) -> Self:
        try:
            self.servers: EmbeddedServers = await self.do(self._context.__enter__)
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def do(self, work: Callable[[], Any]) -> Any:
        """Let the servers' thread do what takes a while, such as a start."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _servers(
        self, postgres_options: Mapping[str, str] | None, say: Callable[[str], None]
    ) -> AbstractContextManager[EmbeddedServers]:
        return embedded_servers(self.folder, postgres_options=postgres_options, say=say)

    async def _start(self) -> None:
        await self._start_service()
        await self._start_rest()
        self._keeper = asyncio.create_task(self._keep())

    async def _start_service(self) -> None:
        self.database_url = self.servers.database_url
        port = choose_port(None)
        self.url = f"http://{HOST}:{port}"
        await migrate(self.database_url)
        self.settings = {
            "ENV": "test",
            "APP_HOST": HOST,
            "APP_PORT": str(port),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.servers.redis_url,
            "RATE_LIMIT_BACKEND": "redis",
            "STRIPE_SIGNING_SECRET": SECRET,
            "OUTBOUND_ALLOW_HOSTS": "127.0.0.0/8",
            # A receiver that is down for seconds must not be given up, nor be waited for by the hour.
            "WEBHOOK_BASE_DELAY_SECS": "0.2",
            "WEBHOOK_BACKOFF_FACTOR": "1.5",
            "WEBHOOK_MAX_ATTEMPTS": "100",
            "SHUTDOWN_TIMEOUT_SECS": "5",
            **self._more_settings(),
        }
        serve = [*PYTHON, "ops.cli", "serve", "--workers", str(API_PROCESSES)]
        self.serve = self.member("serve", serve, self.settings)
        self.workers = [
            self.member(f"worker{number}", [*PYTHON, "ops.cli", "worker"], self.settings)
            for number in range(1, WORKERS + 1)
        ]
        await self.wait_ready()

    def _more_settings(self) -> dict[str, str]:
        return {}

    async def _start_rest(self) -> None:
        """Start the others who play."""
        await self._start_shops()

    async def _start_shops(self) -> None:
        """Open the shops, and start the receiver of their webhooks."""
        hooks = choose_port(None)
        self.keys = await self._make_keys()
        self.received = self.folder / "received.jsonl"
        reached = self._hooks_port(hooks)
        secrets = [
            await self._open_shop(shop, f"http://{HOST}:{reached}/hooks/{shop}") for shop in range(SHOPS)
        ]
        receiver = [*PYTHON, "loadtests.chaos.receiver", f"--port={hooks}", f"--log={self.received}"]
        receiver.append(f"--seed={self._seed}")
        self.receiver = self.member("receiver", receiver, {}, msgspec.json.encode(secrets))
        if not await wait_until(self._receiver_listens, READY_SECONDS):
            raise StandError(f"the receiver did not start{self.log_tails()}")

    def _hooks_port(self, port: int) -> int:
        """Return the port at which the receiver on `port` is reached."""
        return port

    def member(
        self, name: str, command: Sequence[str], settings: Mapping[str, str], feed: bytes = b""
    ) -> Member:
        """Start a process, and keep it running from then on."""
        member = Member(name, command, settings, self.folder, feed)
        self.members.append(member)
        member.start()
        return member

    async def _make_keys(self) -> list[str]:
        settings = load_settings(env_file=None, env="test", database_url=self.database_url)
        database = await open_database(settings, role=None, size=2)
        try:
            return [(await create_key(database, f"shop {shop}", SCOPES))[0] for shop in range(SHOPS)]
        finally:
            await database.close()

    async def _open_shop(self, shop: int, hook: str) -> str:
        """Open a shop's account, create its endpoint, and return the endpoint's secret."""
        await self._call(shop, "POST", "/v1/accounts", {"code": shop_account(shop), "currency": CURRENCY})
        endpoint = {"url": hook, "event_types": ["payment.succeeded"]}
        return str((await self._call(shop, "POST", "/v1/webhook-endpoints", endpoint))["secret"])

    async def balances(self) -> dict[str, int]:
        """The balances of the shops and of what Stripe owes, as the API tells them."""
        accounts = [(shop, shop_account(shop)) for shop in range(SHOPS)] + [(0, CLEARING_ACCOUNT)]
        return {
            code: int((await self._call(shop, "GET", f"/v1/accounts/{code}"))["balance"])
            for shop, code in accounts
        }

    async def _call(self, shop: int, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[shop]}"}
        if body is not None:
            headers["Idempotency-Key"] = f"chaos:{path}:{shop}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), headers=headers) as session,
            session.request(method, self.url + path, json=body) as response,
        ):
            answer = await response.read()
            if response.status >= 400:
                raise StandError(f"{method} {path} was answered {response.status}: {answer.decode()}")
            return msgspec.json.decode(answer)

    async def wait_ready(self) -> None:
        """Wait until the API says that it is ready. Raises StandError after a minute."""

        async def ready() -> bool:
            timeout = aiohttp.ClientTimeout(5)
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.get(f"{self.url}/ready") as response,
                ):
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                return False

        if not await wait_until(ready, READY_SECONDS):
            raise StandError(f"the service was not ready within {READY_SECONDS:g} s{self.log_tails()}")

    async def _receiver_listens(self) -> bool:
        return self.received.exists()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A connection with the owner's rights."""
        connection: Connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close(timeout=STOP_SECONDS)

    def api_pids(self) -> list[int]:
        """The API's processes that live now."""
        pid = self.serve.pid
        children = [] if pid is None else tree(pid, process_table())[1:]
        return [child.pid for child in children if command_line_of(child.pid)]

    def postgres_pids(self) -> list[int]:
        """All processes of PostgreSQL, the postmaster first."""
        pid = self.servers.postgres.pid
        return [] if pid is None else [process.pid for process in tree(pid, process_table())]

    def lines(self) -> list[Line]:
        """Return the lines that the receiver has written down so far."""
        with self.received.open("rb") as log:
            log.seek(self._read_to)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to += len(whole)
        self._lines += read_lines(whole)
        return self._lines

    async def _keep(self) -> None:
        while True:
            for member in self.members:
                member.revive()
            await asyncio.sleep(LOOK_SECONDS)

    def log_tails(self) -> str:
        """The ends of all logs, for a message."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "".join(f"\n{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)

    async def _close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        for member in reversed(self.members):
            await asyncio.to_thread(member.stop)
        with contextlib.suppress(StartError):
            await self.do(lambda: self._context.__exit__(None, None, None))
        self._thread.shutdown()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
