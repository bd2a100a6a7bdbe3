"""The jobs of payments as commands, under the names of before and ours, over a simulator and a receiver."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from core.outbox.callbacks import ORCHESTRATION, Callback, secret_of, standings_of, write_callback
from core.payments.flow import Payments, Route
from core.payments.payments import NewPayment, Payment
from core.payments.states import State
from core.providers.simulator import Simulator
from core.settings import Settings
from core.vault import Vault
from handlers.simulator.site import Simulator as Server
from ops.process import python_environment
from tests.commands import tallystick
from tests.core.payments.conftest import Desk, desk, owner
from tests.core.providers.scenes import serving

__all__ = ["desk", "owner"]  # fixtures


async def routes(_new: NewPayment, _payment_id: UUID) -> Route:
    return Route(["simulator"])


@asynccontextmanager
async def simulated(desk: Desk) -> AsyncIterator[str]:
    """Let the desk's payments go to a simulator; yield its address."""
    async with serving(Server().application()) as url:
        provider = Simulator(url)
        desk.payments = Payments(desk.service.database, desk.service.ledger, {"simulator": provider}, routes)
        try:
            yield url
        finally:
            await provider.close()


async def pay(url: str, payment: Payment) -> None:
    name = payment.latest.provider_id
    async with aiohttp.request("POST", f"{url}/v1/payments/{name}/pay", json={"outcome": "paid"}) as answer:
        assert answer.status == 200


def servers(settings: Settings, **more: str) -> dict[str, str]:
    return {"DATABASE_URL": str(settings.database_url), "REDIS_URL": str(settings.redis_url), **more}


async def run(*words: str, **environment: str) -> tuple[int, str]:
    done = await tallystick(*words, **environment)
    return done.returncode, done.stdout or done.stderr


async def test_payments_are_looked_at_and_expired_by_command(desk: Desk, settings: Settings) -> None:
    async with simulated(desk) as url:
        given = servers(settings, SIMULATOR_URL=url)
        young = await desk.create()
        await pay(url, young)
        # Nothing is due, and nothing is stale.
        assert await run("payments", "reconcile", **given) == (0, "reconcile: 0 done, 0 failed.\n")
        stale = "PAYMENTS_RECONCILE_STALE_AFTER_MINUTES"
        at_once = given | {stale: "0"}
        code, out = await run("payments", "reconcile", "--json", **at_once)
        assert (code, json.loads(out)) == (0, {"job": "reconcile", "done": 1, "failed": 0})
        assert (await desk.again(young)).state is State.PAID

        past = datetime.now(UTC) - timedelta(minutes=1)
        open_, taken = await desk.create(expires_at=past), await desk.create(expires_at=past)
        later = await desk.create(expires_at=past + timedelta(hours=1))
        await pay(url, taken)
        code, out = await run("expire", "pending", "--json", **given)
        assert (code, json.loads(out)) == (0, {"job": "expire pending", "done": 2, "failed": 0})
        states = [(await desk.again(one)).state for one in (open_, taken, later)]
        assert states == [State.EXPIRED, State.PAID, State.PENDING], (
            "the provider is asked before it is closed"
        )

        # A shorter time than at the making holds for payments of orchestration alone; 0 is at once.
        theirs = await desk.create(expires_at=past + timedelta(hours=1), surface="orchestration")
        for minutes, state in (("1", State.PENDING), ("0", State.EXPIRED)):
            code, _ = await run("expire", "pending", **given, PAYMENTS_PENDING_TIMEOUT_MINUTES=minutes)
            assert (code, (await desk.again(theirs)).state) == (0, state)
        assert (await desk.again(later)).state is State.PENDING

        # A provider that does not answer is a failure that the exit code tells, and changes nothing.
        await desk.create(expires_at=past)
    code, out = await run("payments", "expire", **given)
    assert (code, out) == (1, "expire pending: 0 done, 1 failed.\n")
    code, out = await run("payments", "reconcile", **at_once)
    assert (code, out) == (1, "reconcile: 0 done, 2 failed.\n")
    assert (await desk.again(later)).state is State.PENDING
    # Nor does one that is not set up.
    done = await tallystick("payments", "reconcile", **servers(settings, **{stale: "0"}))
    assert (done.returncode, done.stdout) == (1, "reconcile: 0 done, 2 failed.\n")
    assert "2 open at simulator, which these settings do not set up" in done.stderr


async def test_callbacks_are_dispatched_by_command(desk: Desk, settings: Settings) -> None:
    seen: list[str] = []
    statuses = [200, 500]

    async def receive(request: web.Request) -> web.Response:
        seen.append(await request.text())
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/status", receive)
    vault = Vault()
    async with serving(app) as url:
        async with desk.service.database.transaction() as connection:
            for name in ("one", "two"):
                callback = Callback(ORCHESTRATION, name, "gateway", f"{url}/status", f'"{name}"'.encode())
                await write_callback(connection, vault, callback)
        given = servers(settings, OUTBOUND_ALLOW_HOSTS="127.0.0.0/8")
        code, out = await run("callbacks", "dispatch", "--json", **given)
        assert json.loads(out) == {"job": "callbacks dispatch", "done": 1, "failed": 1}
        assert (code, sorted(seen)) == (1, ['"one"', '"two"'])
        assert await run("callbacks", "dispatch", **given) == (0, "callbacks dispatch: 0 done, 0 failed.\n")
        found = await standings_of(desk.service.database, ORCHESTRATION, ["one", "two"])
        assert sorted(one.state for one in found.values()) == [1, 10]

        code, out = await run("callbacks", "list", "--json", **given)
        assert [(one["owner"], one["origin"]) for one in json.loads(out)] == [("gateway", url)]
        code, shown = await run("callbacks", "secret", "orchestration", "gateway", f"{url}/any", **given)
        async with desk.service.database.transaction() as connection:
            assert shown.strip() == await secret_of(connection, vault, ORCHESTRATION, "gateway", url)
        _, renewed = await run("callbacks", "secret", "orchestration", "gateway", url, "--new", **given)
        assert renewed != shown

        # A name that nobody has is told, and an address that cannot be sent to is refused.
        for words, code, said in (
            (("orchestration", "nobody", url), 0, "No service nobody has a key here or has called yet."),
            (("orders", "77", url), 2, "There is no merchant 77."),
            (("orders", "all", url), 0, ""),
            (("orchestration", "gateway", "gateway.test/any"), 2, "The URL cannot be used"),
        ):
            done = await tallystick("callbacks", "secret", *words, **given)
            assert (done.returncode, said in done.stderr, bool(done.stdout)) == (code, True, code == 0)
        async with desk.service.database.transaction() as connection:
            await write_callback(connection, vault, Callback(ORCHESTRATION, "three", "gateway", "x", b"{}"))
        _, listed = await run("callbacks", "list", **given)
        assert "orchestration gateway  no address that can be sent to" in listed


@pytest.mark.parametrize(
    "words",
    [
        ("payments", "reconcile", "--worker", "--json"),
        ("reconcile", "--worker"),
        ("--worker", "reconcile"),
        ("expire", "pending", "--worker"),
        ("expire", "--worker", "pending"),
        ("callbacks", "dispatch", "--worker"),
        ("callbacks", "--worker", "dispatch"),
    ],
)
async def test_a_worker_needs_an_interval(words: tuple[str, ...], settings: Settings) -> None:
    name = {"expire": "EXPIRE_PENDING", "callbacks": "CALLBACK_DISPATCH"}.get(words[0], "RECONCILE")
    key = f"PAYMENTS_{name}_INTERVAL_MINUTES"
    code, out = await run(*words, **servers(settings, **{key: "0"}))
    assert code == 2
    assert f"{key} is 0: a worker needs an interval above 0 minutes." in out


async def test_a_worker_runs_at_once_and_until_a_signal(desk: Desk, settings: Settings) -> None:
    async with simulated(desk) as url:
        payment = await desk.create()
        await pay(url, payment)
        given = servers(settings, SIMULATOR_URL=url, PAYMENTS_RECONCILE_STALE_AFTER_MINUTES="0")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", "--worker", "reconcile",
            env=python_environment(**given), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"reconcile: 1 done, 0 failed.\n"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert (await desk.again(payment)).state is State.PAID
