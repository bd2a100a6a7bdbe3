"""The Locust suite as a program of its own, against a stand-in for the API: Locust patches the process it runs in."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web

from ops.process import PROJECT
from ops.state import Running, announced, state_lock

pytestmark = pytest.mark.drill

SECRET = "whsec_test"
Load = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Runs `tallystick load` with five users for two seconds, against a port or else the instance that runs here.

    Returns the exit code and what it printed.
    """

    async def run(port: int | None, *options: str, secret: str = SECRET) -> tuple[int, str]:
        command = [sys.executable, "-c", "from ops.commands.develop.load import load; load()"]
        command += ["--users", "5", "--seconds", "2"]
        if port is not None:
            command += ["--url", f"http://127.0.0.1:{port}", "--api-key", "tsk_test"]
        environment = {"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "STATE_DIR": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, "STRIPE_SIGNING_SECRET": secret},
            cwd=tmp_path,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode or 0, output.decode()

    return run


@pytest.fixture
def stub() -> "Stub":
    return Stub()


class Stub:
    """Answers everything with 201, after `delay` seconds, and keeps what came."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.status = 201
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    async def __aenter__(self) -> int:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay)
        return web.json_response({"status": "posted"}, status=self.status)


async def test_transfers_and_signed_stripe_events_within_their_budgets(load: Load, stub: Stub) -> None:
    async with stub as port:
        code, output = await load(port, "--api-key", "tsk_test", "--stripe-secret", "whsec_test", *generous())

    assert code == 0, output
    assert "kept" in output
    assert {path for path, _, _ in stub.seen} == {"/v1/accounts", "/v1/transfers", "/webhooks/stripe"}
    transfers = [headers for path, headers, _ in stub.seen if path == "/v1/transfers"]
    assert {headers["Authorization"] for headers in transfers} == {"Bearer tsk_test"}
    assert len({headers["Idempotency-Key"] for headers in transfers}) == len(transfers)
    events = [(headers, body) for path, headers, body in stub.seen if path == "/webhooks/stripe"]
    ids = set()
    for headers, body in events:
        event: Any = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
        assert event["type"] == "payment_intent.succeeded"
        assert event["data"]["object"]["metadata"]["account"].startswith("load-")
        ids.add(event["id"])
    assert len(ids) == len(events)


async def test_a_breached_budget_fails_the_run(load: Load, stub: Stub, tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[requests."POST /v1/transfers"]\np95_ms = 20\n')
    stub.delay = 0.1
    async with stub as port:
        code, output = await load(port, "--budgets", str(budgets))
    assert code == 1, output
    assert "budget breached: POST /v1/transfers: p95" in output
    assert "is over 20 ms" in output


async def test_failed_requests_fail_the_run(load: Load, stub: Stub) -> None:
    stub.status = 503
    async with stub as port:
        code, output = await load(port, *generous())
    assert code == 1, output
    assert "failed" in output


async def test_against_the_instance_that_runs_here_nothing_has_to_be_given(
    load: Load, stub: Stub, tmp_path: Path
) -> None:
    async with stub as port:
        running = Running(f"http://127.0.0.1:{port}", "", "", "tsk_of_that_one", "whsec_of_that_one")
        with state_lock(tmp_path), announced(tmp_path, running):
            code, output = await load(None, *generous(), secret="")

    assert code == 0, output
    transfers = [headers for path, headers, _ in stub.seen if path == "/v1/transfers"]
    assert {headers["Authorization"] for headers in transfers} == {"Bearer tsk_of_that_one"}
    events = [(headers, body) for path, headers, body in stub.seen if path == "/webhooks/stripe"]
    assert events
    for headers, body in events:
        stripe.Webhook.construct_event(body, headers["Stripe-Signature"], "whsec_of_that_one")


async def test_without_the_secret_it_says_what_to_set(load: Load) -> None:
    code, output = await load(1, secret="")
    assert code == 2
    assert "STRIPE_SIGNING_SECRET" in output


def generous() -> list[str]:
    """Budgets that a busy machine keeps too: how fast it is is no matter of the suite."""
    path = Path(__file__).with_name("generous_budgets.toml")
    return ["--budgets", str(path)]
