"""`tallystick up`: everything on one machine, from embedded servers to a first API key, until Ctrl-C."""

from __future__ import annotations

import asyncio
import http.client
import secrets
import shlex
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape

from core.access.api_keys import SCOPES, ApiKeys, create_key
from core.database import open_database
from core.errors import Refusal
from core.metrics import forget_process
from core.migrations import migrate
from core.outbox.signing import new_secret
from ops.embedded import Postgres, Valkey
from ops.listening import (
    Listeners,
    Reserved,
    check_contract_ports,
    contract_ports,
    listen_where_free,
    reserve_grpc,
)
from ops.process import StartError, trim_log
from ops.reach import reaching_database, redis_problem
from ops.serving import api_program, metrics_folder, worker_program
from ops.simulating import Simulated, simulate
from ops.state import Running, announced, overlooked_state, state_dir, state_lock, write_secret
from ops.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.settings import Settings
    from ops.embedded.server import Server

# The ports are not the usual ones, which a server of the person's own may take at any time; and they are the same at
# every start, so that a URL that was noted down stays right.
POSTGRES_PORT = 15432
REDIS_PORT = 16379
# The time after processes accept connections: for the first connections to the database, on a busy machine.
READY_WITHIN_SECONDS = 30.0
READY_POLL_SECONDS = 0.05
# The token is as long as a key of 256 bits.
ADMIN_TOKEN_BYTES = 32
# An embedded server that could not be started again is tried again after this.
REVIVE_PAUSE_SECONDS = 10.0

console = Console(highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """Print one line; a terminal that has gone is no reason to fail."""
    with suppress(OSError):
        console.print(text, style=style, markup=False)


def run_everything(settings: Settings, *, verbose: bool) -> None:
    """Run all parts until SIGINT, SIGTERM or SIGHUP, and end them in order. Raises StartError and Refusal."""
    folder = state_dir(settings)
    with ExitStack() as stack:
        stack.enter_context(_signals_interrupt())
        stack.enter_context(state_lock(folder))
        for notice in settings.notices:
            say(notice, "yellow")
        if (left := overlooked_state(settings, folder)) is not None:
            say(
                f"The data are in {folder}; those in {left} are left alone: STATE_DIR={left} uses them.",
                "yellow",
            )
        check_contract_ports(settings, _host(settings))
        servers: list[Server] = []
        database_url, redis_url = str(settings.database_url), str(settings.redis_url)
        if not database_url:
            postgres = Postgres(folder, port=POSTGRES_PORT, say=say)
            say(f"Starting PostgreSQL {postgres.program.version} ...", "dim")
            servers.append(stack.enter_context(postgres))
            database_url = postgres.url()
        # The database comes before anything else is started: without it there is nothing to run.
        owner_url = str(settings.database_direct_url) or database_url
        with reaching_database(settings.owner_url or database_url):
            asyncio.run(migrate(owner_url, on_progress=lambda name: say(f"Applying {name}", "dim")))
        if redis_url:
            if problem := redis_problem(settings):
                say(problem, "yellow")
        else:
            valkey = Valkey(folder, port=REDIS_PORT, say=say)
            say(f"Starting {valkey.title} {valkey.program.version} ...", "dim")
            servers.append(stack.enter_context(valkey))
            redis_url = valkey.url()
        listeners = _listen(settings)
        common = listeners[0]
        grpc = _reserve_grpc(settings)
        settings = settings.model_copy(
            update={"database_url": database_url, "redis_url": redis_url, "app_port": common.port}
        )
        key = _development_key(settings, folder / "api_key") if settings.env != "prod" else ""
        secret = _development_stripe_secret(settings, folder / "stripe_signing_secret")
        simulated = simulate(settings, folder, _taken(settings, grpc))
        running = _with_simulator(
            Running(_url(common), database_url, redis_url, key, secret, settings.simulator_url),
            settings,
            simulated,
        )
        stack.enter_context(announced(folder, running))
        admin_token = _development_admin_token(settings, folder / "admin_token")
        _Instance(
            settings, folder, running, listeners, servers, admin_token, simulated, grpc, verbose=verbose
        ).run()
        say("Stopping the servers ...", "dim")
    say("Stopped.", "dim")


@dataclass(slots=True)
class _Instance:
    """The API and the worker, which run between the start of the embedded servers and their stop."""

    settings: Settings
    folder: Path
    running: Running
    listeners: list[Listeners]
    servers: list[Server]
    # The token that was made for development; empty where one is set.
    admin_token: str
    simulated: Simulated | None
    grpc: Reserved | None
    verbose: bool
    _revive_at: float = 0.0
    _offsets: dict[Path, int] = field(default_factory=dict)

    def run(self) -> None:
        """Run the API and the worker until a signal says to stop."""
        logs = self.folder / "logs"
        programs = [
            api_program(self.settings, logs / "api.log", self.grpc),
            worker_program(self.settings, logs / "worker.log"),
            *([self.simulated.program(logs / "simulator.log")] if self.simulated else []),
        ]
        for path in (program.log for program in programs):
            if path is not None:
                self._offsets[path] = path.stat().st_size if path.exists() else 0
        with metrics_folder(self.settings.prometheus_multiproc_dir or self.folder / "metrics") as metrics:
            supervisor = Supervisor(
                programs,
                self.listeners,
                report=self._report,
                environment={
                    "DATABASE_URL": self.running.database_url,
                    "REDIS_URL": self.running.redis_url,
                    "APP_PORT": str(self.listeners[0].port),
                    "APP_HOST": self.listeners[0].host,
                    "STATE_DIR": str(self.folder),
                    **({"GRPC_PORT": str(self.grpc.port)} if self.grpc else {}),
                    **_stripe_environment(self.settings, self.running),
                    **{name.upper(): text for name, text in self.running.handed.items()},
                    **({"ADMIN_TOKEN": self.admin_token} if self.admin_token else {}),
                    "PROMETHEUS_MULTIPROC_DIR": str(metrics),
                },
                on_exit=lambda pid: forget_process(pid, str(metrics)),
                on_tick=self._look_around,
                on_ready=lambda: self._welcome(supervisor),
                # SIGHUP means that the terminal has gone, so everything stops.
                hangup_reloads=False,
            )
            supervisor.run()
            self._show_logs()

    def _report(self, event: str, **fields: object) -> None:
        """Print an event that a person should know of; a start or an end in good order is none."""
        name, pid, code = fields.get("process"), fields.get("pid"), fields.get("exit_code")
        if event == "stopping":
            say("Stopping the API and the worker ...", "dim")
        elif event == "process.died":
            say(
                f"The {name} process {pid} ended with code {code}; it is started again. Its log: {self._log(name)}",
                "red",
            )
        elif event == "process.killed":
            say(f"The {name} process {pid} did not end in time and was killed.", "red")
        elif event == "process.not_started":
            say(f"The {name} process could not be started: {fields.get('reason')}", "red")

    def _log(self, name: object) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _look_around(self) -> None:
        """Start an embedded server that has died again, and show the logs if that is wanted."""
        self._show_logs()
        for server in self.servers:
            trim_log(server.log)
            if server.pid is not None or time.monotonic() < self._revive_at:
                continue
            say(
                f"The embedded {server.title} server has died and is started again. Its log: {server.log}",
                "red",
            )
            try:
                server.start()
            except StartError as error:
                say(str(error), "red")
                self._revive_at = time.monotonic() + REVIVE_PAUSE_SECONDS

    def _show_logs(self) -> None:
        if not self.verbose:
            return
        for path, offset in self._offsets.items():
            with suppress(OSError), path.open("rb") as log:
                log.seek(offset if offset <= path.stat().st_size else 0)
                text = log.read()
                # A line that is not finished yet is shown when it is.
                whole = text[: text.rfind(b"\n") + 1]
                self._offsets[path] = log.tell() - len(text) + len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    say(f"{path.stem:<6} | {line}")

    def _welcome(self, supervisor: Supervisor) -> None:
        """Wait until the service says that it is ready, and print its addresses and keys."""
        give_up_at = time.monotonic() + READY_WITHIN_SECONDS
        while (reason := _not_ready(self.running.url)) and not supervisor.stopping:
            if time.monotonic() > give_up_at:
                say(f"The service is not ready yet: {reason}. Its log: {self._log('api')}", "yellow")
                break
            time.sleep(READY_POLL_SECONDS)
        if supervisor.stopping:
            return
        url, key = self.running.url, self.running.api_key
        lines = {
            "API": url,
            # The part behind the # stays in the browser: the page takes the key from there.
            "Docs": f"{url}/docs#key={key}" if key else f"{url}/docs",
            "PostgreSQL": self.running.database_url,
            "Redis": self.running.redis_url,
            "Data, logs": str(self.folder),
            **({"Simulator": self.running.simulator_url} if self.running.simulator_url else {}),
            "Stripe secret": self.running.stripe_signing_secret or "none is set: STRIPE_SIGNING_SECRET",
            "API key": key or "none in ENV=prod; make one with `tallystick keys create`",
            "Admin token": self.admin_token or "the token that is set",
            **({"gRPC": f"{_reachable(self.grpc.host)}:{self.grpc.port}"} if self.grpc else {}),
            **{each.setting.upper(): _url(each) for each in self.listeners[1:]},
        }
        # The block has no frame: a frame would break a long address in two, and addresses are there to be copied.
        with suppress(OSError):
            console.rule("[bold]Tallystick is running[/] · Ctrl-C stops it", style="green")
            width = max(map(len, lines)) + 2
            for name, value in lines.items():
                console.print(f"  [bold]{name:<{width}}[/]{escape(value)}")
            console.rule(style="green")
        say("A first call, which opens an account:\n")
        # Brackets, as of an IPv6 address, mean something to a shell.
        say(f"  curl {shlex.quote(f'{url}/v1/accounts')} -H 'Authorization: Bearer {key or '...'}' \\")
        say('    -H \'Content-Type: application/json\' -d \'{"code": "customer:1", "currency": "USD"}\'\n')


def _with_simulator(running: Running, settings: Settings, simulated: Simulated | None) -> Running:
    if simulated is None:
        return running
    handed = simulated.handed(settings, running.url)
    return replace(running, simulator_url=simulated.url, handed=handed)


def _development_key(settings: Settings, path: Path) -> str:
    """Return the key kept in `path`; a new one where there is none, or where this database does not know it."""
    kept = path.read_text() if path.exists() else None
    key = asyncio.run(_known_or_new_key(settings, kept))
    if key != kept:
        write_secret(path, key)
    return key


def _development_stripe_secret(settings: Settings, path: Path) -> str:
    """Return the secret that Stripe's events are signed with: the secret that is set, or one made for development."""
    if settings.stripe_signing_secrets or settings.env == "prod":
        return str(next(iter(settings.stripe_signing_secrets), ""))
    if not path.exists():
        write_secret(path, new_secret())
    return path.read_text()


def _stripe_environment(settings: Settings, running: Running) -> dict[str, str]:
    """Return the variables that hand a secret made for development to the processes; one that is set needs none."""
    made = running.stripe_signing_secret and not settings.stripe_signing_secrets
    return {"STRIPE_SIGNING_SECRET": running.stripe_signing_secret} if made else {}


def _development_admin_token(settings: Settings, path: Path) -> str:
    """Return the admin token made for development, empty where one is set or ENV is prod, which wants one."""
    if settings.admin_token or settings.admin_token_sha256 or settings.env == "prod":
        return ""
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(ADMIN_TOKEN_BYTES))
    return path.read_text()


async def _known_or_new_key(settings: Settings, kept: str | None) -> str:
    database = await open_database(settings, role=None, size=2)
    try:
        with suppress(Refusal):
            await ApiKeys(database, 0).authenticate(kept)
            return str(kept)
        key, _ = await create_key(database, "development", SCOPES, "made by `tallystick up`", created_by="up")
        return key
    finally:
        await database.close()


def _listen(settings: Settings) -> list[Listeners]:
    """Listen on APP_PORT, and on loopback alone unless APP_HOST was given."""
    return listen_where_free(settings, _host(settings), lambda text: say(text, "yellow"), moves=True)


def _reserve_grpc(settings: Settings) -> Reserved | None:
    """Keep the port of gRPC, on loopback alone unless GRPC_HOST or APP_HOST was given."""
    host = settings.grpc_host if "grpc_host" in settings.model_fields_set else _host(settings)
    return reserve_grpc(settings, host, lambda text: say(text, "yellow"))


def _taken(settings: Settings, grpc: Reserved | None) -> set[int]:
    return {settings.app_port, grpc.port if grpc else 0, *contract_ports(settings).values()}


def _host(settings: Settings) -> str:
    return settings.app_host if "app_host" in settings.model_fields_set else "127.0.0.1"


def _url(listeners: Listeners) -> str:
    return f"http://{_reachable(listeners.host)}:{listeners.port}"


def _reachable(host: str) -> str:
    """Return the host at which a client on this machine finds a server that listens on `host`."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _not_ready(url: str) -> str:
    """Return why the service is not ready, or an empty text."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2.0)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return "" if answer.status == 200 else text
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does, so that every server that was started is stopped."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    earlier = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
