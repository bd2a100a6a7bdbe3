"""The command line, run as a person runs it: as a process of its own."""

import asyncio
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from core import __version__
from ops.commands.table import COMMANDS
from ops.embedded import EmbeddedServers
from ops.process import choose_port, command_line_of, is_free, python_environment
from tests.commands import tallystick

Wait = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable["Up"]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli", *arguments]


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = await tallystick(*arguments, **environment)
    return done.returncode, done.stdout, done.stderr


class Up:
    """A `tallystick up` that has said that it is running."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def output(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return self._shown("API")

    @property
    def key(self) -> str:
        return self._shown("API key")

    def first_call(self) -> dict[str, Any]:
        """The call that it proposes, as arguments of a request."""
        line = self.output().partition("  curl ")[2].replace("\\\n", " ")
        url, *options = shlex.split(line)
        given = list(itertools.pairwise(options))
        headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
        return {"url": url, "headers": headers, "data": dict(given)["-d"]}

    def child(self, name: str) -> int:
        """The process id of one of its children, 0 where it has none of that name."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if name in command_line_of(int(pid))), 0)

    def _shown(self, name: str) -> str:
        found = re.search(rf"^  {name} +(\S+)$", self.output(), re.MULTILINE)
        assert found is not None, self.output()
        return found[1]


@pytest.fixture
async def start_up(state: Path, eventually: Wait) -> AsyncIterator[Start]:
    """What starts `tallystick up` on `state` and waits until it runs; whatever the test leaves running is killed."""
    started: list[asyncio.subprocess.Process] = []

    async def start(**environment: str) -> Up:
        log = state / "output"
        environment = {"APP_PORT": str(choose_port(None)), "STATE_DIR": str(state)} | environment
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command("up"), stdout=output, stderr=output, env=python_environment(**environment)
            )
        started.append(process)
        up = Up(process, log)
        await eventually(lambda: "currency" in up.output() or process.returncode is not None, timeout=90)
        assert process.returncode is None, up.output()
        return up

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("name", COMMANDS)
async def test_every_command_has_help_with_an_example(name: str) -> None:
    code, out, err = await run(name, "--help")
    assert (code, err) == (0, "")
    for subcommand in re.findall(r"^  (\w+) ", out.partition("Commands:\n")[2], re.MULTILINE):
        _, further, _ = await run(name, subcommand, "--help")
        out += further
    assert f"Usage: tallystick {name}" in out
    assert re.search(rf"^    .*tallystick {name}\b", out, re.MULTILINE)


async def test_the_overview_names_every_command_and_imports_none() -> None:
    code, out, err = await run("--help")
    assert (code, err) == (0, "")
    assert all(re.search(rf"^  {name} +\w", out, re.MULTILINE) for name in COMMANDS)
    heavy = {"aiohttp", "asyncpg", "pydantic", "rich", "structlog", "uvloop"}
    program = f"import sys; from ops.cli import main; sys.argv[1:] = ['-h']; main(); print({heavy} & {{*sys.modules}})"
    shown = subprocess.run(  # noqa: ASYNC221 - short
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=python_environment()
    )
    assert shown.stdout.endswith("set()\n")


async def test_version() -> None:
    started = await asyncio.create_subprocess_exec(
        *command("version"), stdout=subprocess.PIPE, env=python_environment()
    )
    out, _ = await started.communicate()
    assert started.returncode == 0
    assert __version__ in out.decode()


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (["nonsense"], {}, 2, "No such command 'nonsense'"),
        (["serv"], {}, 2, "Did you mean 'serve'?"),
        (["kyes", "list"], {}, 2, "Did you mean 'keys'?"),
        (["events", "lst"], {}, 2, "Did you mean 'list'?"),
        (["env"], {}, 2, "no `tallystick up` runs on"),
        (["serve", "--workers", "0"], {}, 2, "0 is not in the range"),
        (["serve"], {}, 2, "DATABASE_URL unset"),
        (["worker"], {}, 2, "DATABASE_URL unset"),
        (["migrate"], {}, 2, "DATABASE_URL unset"),
        (["migrate"], {"DATABASE_URL": "mysql://localhost/x"}, 2, "DATABASE_URL="),
        (["up"], {"APP_PORT": "eighty"}, 2, "APP_PORT=eighty: expected a whole number"),
        (["migrate"], {"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"}, 1, "127.0.0.1"),
        (["restore", "books", "--into", " "], {}, 2, "--into is empty"),
    ],
)
async def test_a_mistake_ends_in_a_sentence(
    arguments: list[str], environment: dict[str, str], code: int, sentence: str, tmp_path: Path
) -> None:
    got, _, err = await run(*arguments, STATE_DIR=str(tmp_path), **environment)
    assert got == code
    assert sentence in err
    assert "Traceback" not in err


async def test_migrate_says_what_it_does_and_does_it_once(servers: EmbeddedServers) -> None:
    await _administer(servers, "CREATE DATABASE from_the_command_line")
    url = servers.postgres.url("from_the_command_line")
    code, out, _ = await run("migrate", "--check", DATABASE_URL=url)
    assert code == 1
    assert "outstanding: migrations/0001" in out
    code, out, _ = await run("migrate", DATABASE_URL=url)
    assert code == 0
    assert "applying migrations/0001" in out
    assert await run("migrate", DATABASE_URL=url) == (0, "The schema is up to date.\n", "")
    assert await run("migrate", "--check", DATABASE_URL=url) == (0, "", "")
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO schema_migrations VALUES ('migrations/9999_later.sql', 'sum')")
    await connection.close()
    unknown = "unknown to this version: migrations/9999_later.sql\n"
    assert await run("migrate", "--check", DATABASE_URL=url) == (1, unknown, "")


@pytest.mark.drill
async def test_serve_serves_with_several_processes_and_stops(
    database_url: str, redis_url: str, tmp_path: Path, eventually: Wait
) -> None:
    port = str(choose_port(None))
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "APP_PORT": port,
        "APP_HOST": "127.0.0.1",
    }
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command("serve", "--workers", "2"), stdout=log, stderr=log, env=python_environment(**environment)
        )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await eventually(lambda: _answers(client, "/ready"), timeout=60)
            started = _told(tmp_path / "log", "process.started")
            assert [line["level"] for line in started] == ["info", "info"]
            os.kill(started[0]["pid"], signal.SIGKILL)
            (death,) = await eventually(lambda: _told(tmp_path / "log", "process.died"))
            assert (death["pid"], death["level"]) == (started[0]["pid"], "error")
            code, _, err = await run("serve", **environment)
            assert (code, f"Port {port} on 127.0.0.1 is busy" in err) == (1, True)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.drill
async def test_a_reload_reads_the_servers_anew_and_a_kill_leaves_no_folder_for_long(
    servers: EmbeddedServers,
    template: str,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    api_key: Callable[..., Awaitable[str]],
    eventually: Wait,
) -> None:
    key = await api_key()
    await _administer(servers, f"CREATE DATABASE before_the_reload TEMPLATE {template} STRATEGY file_copy")
    before = servers.postgres.url("before_the_reload")
    dotenv, temporary, port = tmp_path / ".env", tmp_path / "temporary", choose_port(None)
    temporary.mkdir()
    dotenv.write_text(f"DATABASE_URL={before}\nREDIS_URL={redis_url}\n")
    environment = {"APP_PORT": str(port), "APP_HOST": "127.0.0.1", "TMPDIR": str(temporary)}

    async def start(log: Path) -> asyncio.subprocess.Process:
        with log.open("wb") as output:
            return await asyncio.create_subprocess_exec(
                *command("serve"),
                stdout=output,
                stderr=output,
                cwd=tmp_path,
                env=python_environment(**environment),
            )

    process = await start(tmp_path / "log")
    try:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as client:
            await eventually(lambda: _answers(client, "/ready"), timeout=60)
            assert not await _answers(client, "/v1/accounts", key)
            dotenv.write_text(f"DATABASE_URL={database_url}\nREDIS_URL={redis_url}\n")
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: _told(tmp_path / "log", "process.ended"), timeout=60)
            assert await _answers(client, "/v1/accounts", key)

            (left,) = temporary.glob("tallystick-metrics-*")
            process.kill()
            await process.wait()
            await eventually(lambda: is_free("127.0.0.1", port), timeout=30)
            process = await start(tmp_path / "second log")
            await eventually(lambda: _answers(client, "/ready"), timeout=60)
        (folder,) = temporary.glob("tallystick-metrics-*")
        assert folder != left
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    await _administer(servers, "DROP DATABASE before_the_reload WITH (FORCE)")
    assert not list(temporary.glob("tallystick-metrics-*"))


@pytest.mark.drill
async def test_up_runs_everything_and_leaves_nothing(
    state: Path, start_up: Start, eventually: Wait, nothing_runs_on: Callable[[Path], Awaitable[Any]]
) -> None:
    first = await start_up()
    async with aiohttp.ClientSession(first.url) as client:
        assert await _answers(client, "/ready")
        async with client.post(**first.first_call()) as response:
            assert response.status == 201
            assert (await response.json())["code"] == "customer:1"
        # A second one is told off, and a command in another terminal finds the servers of this one.
        code, _, err = await run("up", STATE_DIR=str(state))
        assert (code, f"runs on {state}" in err) == (1, True)
        assert await run("migrate", "--check", STATE_DIR=str(state)) == (0, "", "")
        # What dies is started again: the API, the worker, the database.
        for name in ("ops.api_process", "ops.cli worker", "postgres -D"):
            victim = first.child(name)
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda: first.child(name) not in {0, victim}, timeout=30)  # noqa: B023
        await eventually(lambda: _answers(client, "/ready"), timeout=30)
    first.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(first.process.wait(), 60) == 0
    await nothing_runs_on(state)
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in state.glob("*")}
    assert "running.json" not in modes
    assert modes["api_key"] == "600"

    # The next start has the same key, so that a call that was noted down works; and it dies without a trace.
    second = await start_up()
    assert second.key == first.key
    second.process.kill()
    await second.process.wait()
    await nothing_runs_on(state)


@pytest.mark.drill
async def test_up_uses_the_servers_it_is_given_and_tells_others_where_it_is(
    state: Path, database_url: str, redis_url: str, start_up: Start, eventually: Wait
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "STATE_DIR": str(state)}
        busy = other.getsockname()[1]
        code, _, err = await run("up", APP_PORT=str(busy), **given)
        assert (code, f"Port {busy} on 127.0.0.1 is busy." in err) == (1, True)
    up = await start_up(**given)
    assert not list(state.glob("postgres-*"))
    assert not list(state.glob("valkey-*"))
    async with aiohttp.ClientSession(up.url) as client:
        assert await _answers(client, "/v1/accounts", up.key)
    handed = json.loads((state / "running.json").read_bytes())["handed"]
    assert (handed["simulator_url"], "internal_webhook_secret" in handed) == (up._shown("Simulator"), True)
    # The provider beside it tells the service of each payment, and is believed.
    async with aiohttp.ClientSession(up._shown("Simulator")) as client:
        await eventually(lambda: _answers(client, "/v1/payments"), timeout=30)
        order = {"amount": 5, "currency": "EUR", "method": "hosted_card", "metadata": {"simulate": "paid"}}
        async with client.post("/v1/payments", json=order, headers={"Idempotency-Key": "1"}) as response:
            assert response.status == 200
    connection = await asyncpg.connect(database_url)
    told = "SELECT reason LIKE 'no_attempt%' FROM inbox_events WHERE provider = 'simulator'"
    await eventually(lambda: connection.fetchval(told), timeout=30)
    await connection.close()
    code, out, _ = await run("env", STATE_DIR=str(state))
    assert (code, out) == (0, f"export TALLYSTICK_URL={up.url}\nexport TALLYSTICK_TOKEN={up.key}\n")
    assert json.loads((await run("env", "--json", STATE_DIR=str(state)))[1])["TALLYSTICK_URL"] == up.url
    # An event is sent to the address in the file of the service, with its secret, and its key reads the story.
    sent = "trigger", "stripe", "payment_intent.succeeded", "--account", "nobody:1"
    code, out, err = await run(*sent, "--event-id", "evt_1", STATE_DIR=str(state))
    assert (code, "evt_1  payment_intent.succeeded  200 received" in out) == (0, True), out + err
    # Another service gets neither.
    code, _, err = await run("demo", "--url", "http://127.0.0.1:1", STATE_DIR=str(state))
    assert (code, "no API key is known" in err) == (2, True), err
    # A till finds the service, too, and is told that an API key is no merchant's token.
    code, _, err = await run("pos", "create_qr", "5", STATE_DIR=str(state), TALLYSTICK_TOKEN=up.key)
    assert (code, "is an API key" in err) == (2, True), err
    code, _, err = await run("pos", "create_qr", "5", STATE_DIR=str(state), TALLYSTICK_TOKEN="x.y.z")
    assert (code, "401: " in err) == (1, True), err
    up.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(up.process.wait(), 60) == 0


async def _administer(servers: EmbeddedServers, statement: str) -> None:
    servers.postgres.start()
    connection = await asyncpg.connect(servers.postgres.url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _told(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


async def _answers(client: aiohttp.ClientSession, path: str, key: str = "") -> bool:
    try:
        async with client.get(path, headers={"Authorization": f"Bearer {key}"} if key else {}) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
