"""The Locust suite as a program of its own, against a stand-in for the API: Locust patches the process it runs in."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web

from ops.process import PROJECT

Locust = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def locust() -> Locust:
    """Runs the suite for two seconds, headless; returns the exit code and what it printed."""

    async def run(port: int, *options: str) -> tuple[int, str]:
        program = shutil.which("locust", path=str(Path(sys.executable).parent))
        assert program is not None
        command = [
            program,
            "-f",
            str(PROJECT / "loadtests" / "locustfile.py"),
            "--headless",
            "--only-summary",
        ]
        command += ["-u", "5", "-r", "5", "-t", "2s", "--host", f"http://127.0.0.1:{port}", *options]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": os.defpath}, cwd="/"
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


async def test_transfers_and_signed_stripe_events_within_their_budgets(locust: Locust, stub: Stub) -> None:
    async with stub as port:
        code, output = await locust(
            port, "--api-key", "tsk_test", "--stripe-secret", "whsec_test", *generous()
        )

    assert code == 0, output
    assert "kept" in output
    assert {path for path, _, _ in stub.seen} == {"/v1/accounts", "/v1/transfers", "/webhooks/stripe"}
    transfers = [headers for path, headers, _ in stub.seen if path == "/v1/transfers"]
    assert {headers["Authorization"] for headers in transfers} == {"Bearer tsk_test"}
    assert len({headers["Idempotency-Key"] for headers in transfers}) == len(transfers)
    events = [(headers, body) for path, headers, body in stub.seen if path == "/webhooks/stripe"]
    ids = set()
    for headers, body in events:
        event: Any = stripe.Webhook.construct_event(  # type: ignore[no-untyped-call]
            body, headers["Stripe-Signature"], "whsec_test"
        )
        assert event["type"] == "payment_intent.succeeded"
        assert event["data"]["object"]["metadata"]["account"].startswith("load-")
        ids.add(event["id"])
    assert len(ids) == len(events)


async def test_a_breached_budget_fails_the_run(locust: Locust, stub: Stub, tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[requests."POST /v1/transfers"]\np95_ms = 20\n')
    stub.delay = 0.1
    async with stub as port:
        code, output = await locust(port, "--budgets", str(budgets))
    assert code == 1, output
    assert "is over 20 ms" in " ".join(output.split())


async def test_failed_requests_fail_the_run(locust: Locust, stub: Stub) -> None:
    stub.status = 503
    async with stub as port:
        code, output = await locust(port, *generous())
    assert code == 1, output
    assert "failed" in output


def generous() -> list[str]:
    """Budgets that a busy machine keeps too: how fast it is is no matter of the suite."""
    path = Path(__file__).with_name("generous_budgets.toml")
    return ["--budgets", str(path)]
