"""The ground of the tests: real servers, a database of its own for each test, and the application on top of them."""

import asyncio
import faulthandler
import gc
import inspect
import itertools
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import certifi
import pytest
import structlog
import uvloop
from aiohttp import test_utils, web
from aiohttp.test_utils import TestClient, TestServer
from pytest_timeout import is_debugging

from core import log
from core.access import api_keys
from core.database import Database, open_database
from core.migrations import migrate
from core.settings import Settings, load_settings
from core.settings.kinds import names_of
from handlers.http.protocol import Runner
from ops.embedded import EmbeddedServers, embedded_servers
from tests import commands
from tests.copies import Copies, in_memory
from tests.costs import costs_of
from tests.database.programs import cheap_password, options_for, use_named_programs
from tests.sharing import Part, Parts, alone, named

if TYPE_CHECKING:
    from core.service import Service

# Settings of the developer's machine must not reach a test.
for _attribute, _field in Settings.model_fields.items():
    for _name in names_of(_attribute, _field):
        os.environ.pop(_name, None)
# A process that keeps no bytecode compiles the project anew: a second for each of hundreds, ten for who collects tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# No server of the tests has a certificate of a public authority; reading those is a quarter of the import of aiohttp.
os.environ["SSL_CERT_FILE"] = os.devnull
# No server of the tests has TLS; asking for it costs a connection a millisecond.
os.environ["PGSSLMODE"] = "disable"

use_named_programs()

# A traceback in colours takes a second to print, in which the event loop of a test stands still.
structlog.get_config()["processors"][-1]._exception_formatter = structlog.dev.plain_traceback

# Answers leave through the connections that the service has.
test_utils.AppRunner = Runner  # type: ignore[attr-defined]

POLL_SECONDS = 0.01
TEMPLATE = "tallystick_template"
REDIS_DATABASES = 64
# The disk is not tested: without fsync a copy of the template takes 20 ms in place of 100. Tests that kill -9 a server
# still hold, since only a crash of the machine could lose a commit.
POSTGRES_OPTIONS = {
    "file_copy_method": "clone",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "24MB",
}

# An application is 20,000 objects that live for a test: a look at them for each 700 new ones finds nothing.
GARBAGE = (10_000, 10, 10)

# Each of these files takes as long as a hundred others: fuzzers and benchmark, then tests that start processes.
# The first one is quick where no other test has left thousands of series in the metrics of the process.
SLOW_FIRST = (
    "tests/core/test_metrics.py",
    "tests/loadtests/test_harness.py",
    "tests/handlers/http/test_openapi.py",
    "tests/chaos/",
    "tests/ops/test_setup.py",
    "tests/ops/test_cli.py",
    "tests/handlers/wallets/test_fuzz.py",
    "tests/handlers/wallets/test_authorisation.py",
    "tests/jobs/",
    "tests/ops/",
    "tests/loadtests/",
    "tests/core/ledger/",
    "tests/handlers/http/",
    "tests/test_readme.py",
)
LONG_RUN_SECONDS = 120

TIMER = pytest.StashKey[threading.Timer]()

_copies = itertools.count(1)

ApiClient = TestClient[web.Request, web.Application]
Administer = Callable[[str], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on the loop that the service runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_finish() -> None:
    """Take the imports' objects, which stay, out of the collector's sight: a look at them is a tenth of a test."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """Start PostgreSQL and Valkey on free ports. A test may stop and kill them; the next one finds them running."""
    folder = Path(tempfile.mkdtemp(prefix="tallystick-tests-", dir=in_memory()))
    # Root's servers run as another user; pytest's own temporary folders are closed to it.
    folder.chmod(0o755)
    try:
        with embedded_servers(
            folder, postgres_options=options_for(POSTGRES_OPTIONS), redis_databases=REDIS_DATABASES
        ) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def administer(servers: EmbeddedServers) -> AsyncIterator[Administer]:
    """Return a function that runs a statement as the superuser, on a connection that stays open for all tests."""
    kept: asyncpg.Connection[asyncpg.Record] | None = None

    async def run(statement: str) -> None:
        nonlocal kept
        # A test before this one may have left the server dead, or have ended it and the connection with it.
        servers.postgres.start()
        if kept is None or not await _still_there(kept):
            kept = await asyncpg.connect(servers.postgres.url("postgres"))
        await kept.execute(statement)

    yield run
    if kept is not None:
        kept.terminate()


@pytest.fixture(scope="session")
async def template(servers: EmbeddedServers, administer: Administer) -> str:
    """Return the name of a database with the migrated schema and no rows; the cluster has its roles from then on."""
    await administer(cheap_password(servers.postgres))
    await administer(f"CREATE DATABASE {TEMPLATE}")
    await migrate(servers.postgres.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
async def copies(servers: EmbeddedServers, administer: Administer) -> AsyncIterator[Copies]:
    """Return the databases of tests."""
    made = Copies(administer, servers.postgres.url)
    yield made
    await made.close()


@pytest.fixture(scope="module")
async def parts_of_module() -> AsyncIterator[Parts]:
    """Open the parts that the tests of a module share, each for the first test that asks for it."""
    async with Parts() as parts:
        yield parts


@pytest.fixture
def part(request: pytest.FixtureRequest, parts_of_module: Parts) -> Part:
    """Return a function that opens a part: for one test alone, or, if it is marked `shared`, once for its module."""
    shared = request.node.get_closest_marker("shared") and not request.node.get_closest_marker("alone")
    return parts_of_module.part if shared else alone


@pytest.fixture
async def database_url(
    copies: Copies, template: str, part: Part, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """Return the owner's DSN of a copy of the migrated schema without rows."""
    # The numbers that a template with rows has drawn would begin anew.
    fresh = template != TEMPLATE or request.node.get_closest_marker("fresh") is not None
    async with part("database", lambda: copies.copy(template, fresh=fresh)) as url:
        yield url


@pytest.fixture
async def redis_url(servers: EmbeddedServers, part: Part) -> AsyncIterator[str]:
    """Return the URL of an empty database of the Valkey server."""

    @asynccontextmanager
    async def emptied() -> AsyncIterator[str]:
        servers.valkey.start()
        # Numbers of databases come round; only one module shares at a time, and it has number 0.
        database = 0 if part is not alone else next(_copies) % (REDIS_DATABASES - 1) + 1
        reader, writer = await asyncio.open_connection("127.0.0.1", servers.valkey.port)
        writer.write(f"AUTH {servers.valkey.password}\r\nSELECT {database}\r\nFLUSHDB\r\nQUIT\r\n".encode())
        assert await reader.read() == b"+OK\r\n" * 4
        writer.close()
        await writer.wait_closed()
        yield servers.valkey.url(database)

    async with part("redis", emptied) as url:
        yield url


@pytest.fixture
def authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients of object storage find certificates; they do not start without, even for an address without TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Return the settings of a test: its own database, Redis and state directory, all others at their defaults."""
    given = {"database_url": database_url, "redis_url": redis_url, "state_dir": str(tmp_path)}
    return load_settings(env_file=None, env="test", metrics_interval_secs=0, **given)


@pytest.fixture
async def service(settings: Settings, part: Part) -> AsyncIterator["Service"]:
    """Open the bundle that every process opens."""
    # The import stands here, as below, so that a fault in the application fails its own tests and no others.
    from core.service import open_service  # noqa: PLC0415

    async with part(named("service", settings), lambda: open_service(settings)) as opened:
        yield opened


@pytest.fixture
async def api(settings: Settings, service: "Service", part: Part) -> AsyncIterator[ApiClient]:
    """Return a client of the whole HTTP application on a real socket, which shares `service`."""
    from handlers.app import create_app  # noqa: PLC0415

    async with part(
        named("api", settings), lambda: TestClient(TestServer(create_app(settings, service)))
    ) as client:
        yield client


@pytest.fixture
def api_key(settings: Settings, part: Part) -> Callable[..., Awaitable[str]]:
    """Return a function that makes an API key, with every scope if none is named.

    `key = await api_key("accounts:read", principal="shop")`
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[Database]:
        database = await open_database(settings, role=None, size=2)
        yield database
        await database.close()

    async def create(*scopes: str, principal: str = "test") -> str:
        async with part("administration", opened) as database:
            key, _ = await api_keys.create_key(database, principal, scopes or api_keys.SCOPES)
        return key

    return create


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[Any]]:
    """Return a function that waits for a true answer to a question and returns it, or fails after `timeout` seconds.

    `row = await eventually(lambda: find(), timeout=5)`

    The question may be asynchronous. An AssertionError in it counts as "not yet"; the last one fails the test.
    """

    async def wait(question: Callable[[], Any], timeout: float = 10.0) -> Any:
        give_up_at = time.monotonic() + timeout
        while True:
            failed: AssertionError | None = None
            try:
                answer = question()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return answer
            except AssertionError as error:
                failed = error
            if time.monotonic() > give_up_at:
                raise failed or AssertionError(
                    f"not within {timeout} s: {inspect.getsource(question).strip()}"
                )
            await asyncio.sleep(POLL_SECONDS)

    return wait


async def _still_there(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    try:
        await connection.execute("SELECT 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Take back what `configure_logging` does to the process."""
    root, access = logging.getLogger(), log._access
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    out, on, pretty = access._out, access._on, access._pretty
    yield
    access.open(out, on=on, pretty=pretty)
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    structlog.reset_defaults()


def pytest_sessionfinish() -> None:
    """End the process that the commands of the session were forked from."""
    commands.end()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files: the last file to end is then a quick one, and no process waits long for another."""

    def place(item: pytest.Item) -> int:
        return next(
            (at for at, path in enumerate(SLOW_FIRST) if item.nodeid.startswith(path)), len(SLOW_FIRST)
        )

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the parts left out since a program is not on this machine and, after a long run, the costs of its tests.

    A test tells what it left out by the property `left_out`, and what it has measured or counted by `shown`.
    """
    reports = [
        report
        for report in itertools.chain.from_iterable(terminalreporter.stats.values())
        if isinstance(report, pytest.TestReport)
    ]
    told = {
        (name, str(value)) for report in reports if report.passed for name, value in report.user_properties
    }
    for name, sentence in sorted(told):
        if name == "left_out":
            terminalreporter.write_line(f"LEFT OUT: {sentence}", yellow=True)
        elif name == "shown":
            terminalreporter.write_line(f"SHOWN: {sentence}")
    if sum(report.duration for report in reports) > LONG_RUN_SECONDS:
        for line in costs_of(reports):
            terminalreporter.write_line(line)


# pytest-timeout's own ways fail here: uvloop swallows what a signal's handler raises, and the stack of the thread shows
# the loop and not what its tasks wait for.
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Let a test that is out of time end its process; tests that ran beside it there count as failed with it."""
    item.stash[TIMER] = threading.Timer(settings.timeout, _end_hung, (item,))
    item.stash[TIMER].daemon = True
    item.stash[TIMER].start()
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    # A file that cannot be collected is asked, too, and has no timer.
    if TIMER in item.stash:
        item.stash[TIMER].cancel()
    return True


def _end_hung(item: pytest.Item) -> None:
    if is_debugging():
        return
    try:
        item.config.pluginmanager.getplugin("capturemanager").suspend_global_capture()
        told = [f"\nOUT OF TIME: {item.nodeid}"]
        for task in (each for each in gc.get_objects() if issubclass(type(each), asyncio.Task)):
            told.append(f"{task.get_name()}:")
            waits: Any = task.get_coro()
            while waits is not None:
                frame = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None)
                told.append(f"  {frame.f_code.co_filename}:{frame.f_lineno}" if frame else f"  {waits!r}")
                waits = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
        os.write(2, "\n".join([*told, ""]).encode())
        faulthandler.dump_traceback(2)
    finally:
        os._exit(1)
