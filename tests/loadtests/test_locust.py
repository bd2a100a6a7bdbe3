"""`tallystick load` as a program: against a service of its own, and against a stand-in that is slow or failing."""

import asyncio
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web

from loadtests.suites import SUITES
from ops.process import PROJECT
from ops.state import Running, announced, state_lock
from tests.copies import in_memory

# A run starts a service and Locust: seconds each on a machine that is busy otherwise.
pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]

SECRET = "whsec_test"
Load = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of root's servers can enter."""
    made = Path(tempfile.mkdtemp(prefix="tallystick-load-", dir=in_memory()))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def load(folder: Path) -> Load:
    """Runs `tallystick load` and returns the exit code and what it printed; the reports go to `out` in `folder`."""

    async def run(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "ops.cli", "load", "--output", str(folder / "out"), *options]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "STATE_DIR": str(folder)},
            cwd=folder,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 240)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        return process.returncode or 0, output.decode()

    return run


class Stub:
    """Answers everything as a service would, after `delay` seconds for what is measured, and keeps what came."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.status = 201
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path in {"/ready", "/v1/accounts"}:
            return web.json_response({})
        self.seen.append((request.path, dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay)
        return web.json_response({"code": "sorry"}, status=self.status)

    def events(self) -> list[Any]:
        """The events that came; each signature is checked by Stripe's own library."""
        return [
            stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
            for path, headers, body in self.seen
            if path == "/webhooks/stripe"
        ]


@pytest.fixture
def stub() -> Stub:
    return Stub()


def budgets(folder: Path, p95_ms: int) -> list[str]:
    path = folder / "budgets.toml"
    requests = "".join(f'"{name}" = {{ p95_ms = {p95_ms} }}\n' for name in SUITES["webhooks"].requests)
    path.write_text(f"[[webhooks]]\nusers = 50\n[webhooks.requests]\n{requests}")
    return ["--suite", "webhooks", "--budgets", str(path)]


def target(url: str) -> list[str]:
    return ["--url", url, "--token", "tsk_test", "--stripe-secret", SECRET]


async def test_smoke_every_suite_makes_each_of_its_requests_at_a_service_of_its_own(
    load: Load, folder: Path
) -> None:
    code, output = await load("--suite", "all", "--smoke")

    assert code == 0, output
    assert "The books agree." in output
    for suite, told in SUITES.items():
        (found,) = (folder / "out").glob(f"*/{suite}-3")
        report = json.loads((found / "report.json").read_text())
        assert {each["name"] for each in report["requests"]} == set(told.requests)
        assert report["total"]["failures"] == 0
        assert {"API", "worker", "PostgreSQL", "Redis", "load generator"} <= report["usage"]["roles"].keys()
    (found,) = (folder / "out").glob("*/mixed-3")
    page = (found / "report.html").read_text()
    # The verdict stands at the head of Locust's page, outside of its scripts.
    assert re.search(
        r'^ *<body>\s*<style>.*<section class="tallystick"><h1>mixed: 3 users', page, re.MULTILINE
    )
    assert page.count('class="tallystick"') == 1
    with (found / "budgets.csv").open() as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["kept"] * (
            len(SUITES["mixed"].requests) + 1
        )
    assert (found / "locust_stats_history.csv").exists()
    # The service and its state are gone, and no key was left behind.
    assert not list(folder.glob("load-*"))
    assert "tsk_" not in "".join(path.read_text() for path in found.iterdir())


async def test_signed_events_come_with_a_share_of_duplicates_and_a_breached_budget_fails_the_run(
    load: Load, stub: Stub, folder: Path
) -> None:
    stub.delay = 0.03
    async with stub as url:
        code, output = await load(*budgets(folder, 5), *target(url), "--users", "5", "--seconds", "4")

    assert code == 1, output
    assert "budget breached: POST /webhooks/stripe: p95" in output
    assert "is over 5 ms" in output
    # A busy machine may be at its own limit.
    assert re.search(
        r"Limit: (The service was not started here|The load generator|All \d+ cores of this)", output
    )
    ids = [event["id"] for event in stub.events()]
    again = 1 - len(set(ids)) / len(ids)
    assert 0.05 < again < 0.5, again


async def test_failed_requests_fail_the_run_with_their_reason(load: Load, stub: Stub, folder: Path) -> None:
    stub.status = 503
    async with stub as url:
        code, output = await load(*budgets(folder, 60_000), *target(url), "--smoke")

    assert code == 1, output
    assert "status 503 sorry" in output
    assert "POST /webhooks/stripe: " in output


async def test_steps_end_where_the_budget_does(load: Load, stub: Stub, folder: Path) -> None:
    stub.delay = 0.05
    async with stub as url:
        options = ["--step", "--users", "2", "--seconds", "2"]
        code, output = await load(*budgets(folder, 20), *target(url), *options)

    assert code == 1, output
    assert "No knee: the first load was too much already: at 2 users, POST /webhooks/stripe: p95" in output
    (page,) = (folder / "out").glob("*/webhooks-steps.html")
    assert "<svg" in page.read_text()
    steps = json.loads(page.with_suffix(".json").read_text())
    assert (steps["knee_users"], len(steps["steps"])) == (None, 1)


async def test_the_keys_of_the_instance_that_runs_here_need_not_be_given(
    load: Load, stub: Stub, folder: Path
) -> None:
    async with stub as url:
        running = Running(url, "", "", "tsk_of_that_one", SECRET)
        with state_lock(folder), announced(folder, running):
            code, output = await load(*budgets(folder, 60_000), "--url", url, "--smoke")

    assert code == 0, output
    assert stub.events()


async def test_a_fault_of_the_run_is_no_breach(load: Load, folder: Path) -> None:
    code, output = await load("--suite", "qr", "--users", "900")
    assert code == 2, output
    assert "No budget of 'qr' is for 900 users" in output
    code, output = await load(*budgets(folder, 5), *target("http://127.0.0.1:1"))
    assert code == 2, output
    assert "No service is ready at http://127.0.0.1:1." in output
