"""The service that is loaded: one of our own, which begins with the run and ends with it, or one that runs already."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from aiohttp import web

from core.database import open_database
from core.ledger.verify import verify
from core.settings import load_settings
from loadtests.bench.stand import HOST, child_environment, wait_until
from loadtests.rates import UNREACHED
from ops.process import open_log, spawn, stop
from ops.state import find_running, make_state, unusable

if TYPE_CHECKING:
    import subprocess

    from ops.state import Running

READY_SECONDS = 120.0
# A range takes a fraction of a second; the bound allows for a disk that has to be read from anew.
VERIFY_STATEMENT_MS = 120_000
STOP_SECONDS = 30.0
LOG_TAIL = 1_500
SETTINGS: Mapping[str, str] = {
    **UNREACHED,
    "ENV": "dev",
    "LOG_LEVEL": "info",
    "OTP_CLIENT_SENDS": "0",
    "MERCHANT_FEE_BPS": "150",
}


class RunError(Exception):
    """A fault of the run, which says nothing about the service's speed; the text is a sentence for a person."""


class Service(NamedTuple):
    """A service under load. `pid` and `database_url` are known of our own alone, the latter of one that runs here."""

    url: str
    api_key: str
    stripe_secret: str
    database_url: str = ""
    pid: int | None = None
    orders_key: str = ""
    service_key: str = ""
    service: str = ""
    callback_url: str = ""


@contextlib.asynccontextmanager
async def own_service(parent: Path, api_processes: int) -> AsyncIterator[Service]:
    """Run `tallystick up` on a fresh state folder, which goes with it. Raises RunError."""
    state = _fresh(parent)
    log = state / "logs" / "up.log"
    settings = {**SETTINGS, "STATE_DIR": str(state), "SERVE_WORKERS": str(api_processes)}
    try:
        with open_log(log) as output:
            # The process starts in the state folder, so that it reads no `.env`.
            process = spawn(
                [sys.executable, "-m", "ops.cli", "up"],
                output=output,
                directory=state,
                environment=child_environment(settings),
            )
        try:
            running = await _ready(process, state)
            async with _callbacks() as callback_url:
                yield Service(
                    running.url,
                    running.api_key,
                    running.stripe_signing_secret,
                    running.database_url,
                    process.pid,
                    callback_url=callback_url,
                )
        finally:
            await asyncio.to_thread(stop, process, (signal.SIGTERM, STOP_SECONDS))
    finally:
        shutil.rmtree(state, ignore_errors=True)


async def disagreements(service: Service) -> list[str]:
    """Return what `tallystick verify` finds wrong with the books, one sentence a check; speed is worth nothing then."""
    settings = load_settings(
        env_file=None,
        env="dev",
        database_url=service.database_url,
        database_statement_timeout_ms=VERIFY_STATEMENT_MS,
    )
    database = await open_database(settings, role=None, size=2)
    try:
        findings = await verify(database)
    finally:
        await database.close()
    return [f"{each.check}: {each.count:,} rows, first {each.subject}: {each.detail}." for each in findings]


@contextlib.asynccontextmanager
async def _callbacks() -> AsyncIterator[str]:
    """Take the callbacks about services' payments, in this process, which has little else to do meanwhile."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/status", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/status"
    finally:
        await runner.cleanup()


def _fresh(parent: Path) -> Path:
    make_state(parent)
    try:
        state = Path(tempfile.mkdtemp(prefix="load-", dir=parent))
    except OSError as error:
        raise unusable(parent, error) from None
    # The servers' user must be able to enter what root made.
    state.chmod(0o755)
    return state


async def _ready(process: subprocess.Popen[bytes], state: Path) -> Running:
    found: list[Running] = []

    async def ready() -> bool:
        if process.poll() is not None:
            raise RunError(f"The service ended with code {process.returncode} at its start.{_tails(state)}")
        running = find_running(state)
        if running is None or not await is_ready(running.url):
            return False
        found.append(running)
        return True

    if not await wait_until(ready, READY_SECONDS):
        raise RunError(f"The service was not ready within {READY_SECONDS:g} s.{_tails(state)}")
    return found[0]


async def is_ready(url: str) -> bool:
    """Whether a service says that it is ready."""
    timeout = aiohttp.ClientTimeout(5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/ready") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _tails(state: Path) -> str:
    logs = sorted((state / "logs").glob("*.log"))
    return "".join(f"\n{log.name}: {log.read_text(errors='replace')[-LOG_TAIL:]}" for log in logs)
