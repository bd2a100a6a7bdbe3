"""`tallystick events`, `listen` and `trigger`: each as a process of its own, beside a service with a worker."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from core import ids
from core.service import Service
from core.settings import Settings
from jobs.worker import work
from ops.process import python_environment
from ops.receiving import Delivery, Receiver
from tests.commands import perform, tallystick

SECRET = "whsec_of_the_events"
SETTLED = "applied, delivered to 1 of 1 endpoints"

ApiClient = TestClient[web.Request, web.Application]
Wait = Callable[..., Awaitable[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"stripe_signing_secrets": (SECRET,), "outbound_allow_hosts": ("127.0.0.0/8",)}
    )


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(work(settings, stopping))
    yield
    stopping.set()
    await task


class Shop(Receiver):
    """A merchant's server that takes everything."""

    def respond(self, delivery: Delivery) -> web.Response:
        return web.Response(status=204)


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> AsyncIterator[str]:
    """A merchant with an account and an endpoint; its key."""
    key, receiver = await api_key(principal="shop"), Shop()
    async with receiver.listening():
        for path, body in (
            ("/v1/accounts", {"code": "shop:main", "currency": "USD"}),
            ("/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payment.succeeded"]}),
        ):
            answer = await api.post(path, json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status == 201, await answer.text()
        yield key


async def started(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", *arguments, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=python_environment(**environment),
    )  # fmt: skip


async def until(process: asyncio.subprocess.Process, words: str) -> str:
    """Read what the process says until `words` are among it."""
    assert process.stdout is not None
    said = ""
    while words not in said:
        read = await asyncio.wait_for(process.stdout.readline(), 60)
        if not read:
            pytest.fail(f"{said}: {await process.communicate()}")
        said += read.decode()
    return said


@pytest.mark.drill
async def test_an_event_is_triggered_heard_listed_and_told(
    api: ApiClient, worker: None, shop: str, settings: Settings, tmp_path: Path
) -> None:
    database = {"DATABASE_URL": str(settings.database_url), "STATE_DIR": str(tmp_path)}
    service = {
        "TALLYSTICK_URL": str(api.make_url("/")),
        "TALLYSTICK_TOKEN": shop,
        "STRIPE_SIGNING_SECRET": SECRET,
        "STATE_DIR": str(tmp_path),
    }
    paid = ("trigger", "stripe", "payment_intent.succeeded")
    listening, tailing = (
        await started("listen", **database),
        await started("events", "tail", "--json", **database),
    )
    for process in (listening, tailing):
        assert process.stderr is not None
        assert await asyncio.wait_for(process.stderr.readline(), 60) == b"Listening. Ctrl-C stops.\n"

    done = await tallystick(*paid, "--account", "shop:main", "--event-id", "evt_1", **service)
    assert done.returncode == 0, done.stderr
    assert "200 received" in done.stdout
    assert "evt_1  applied" in done.stdout
    assert re.search(r"transfer \S+: provider:stripe:clearing:USD -1500, shop:main \+1500", done.stdout)
    again = await tallystick(*paid, "--account", "shop:main", "--event-id", "evt_1", **service)
    assert (again.returncode, "200 duplicate ignored" in again.stdout) == (0, True)
    said = await until(listening, SETTLED)
    assert said.splitlines()[0].split()[1:] == ["stripe", "evt_1", "payment_intent.succeeded", "received"]
    heard = json.loads(await until(tailing, "evt_1"))
    assert (heard["event"]["event_id"], heard["event"]["provider"]) == ("evt_1", "stripe")

    # Events that do not end in a payment do not end quietly either.
    dead = await tallystick(
        *paid, "--account", "shop:main", "--currency", "dollars", "--event-id", "evt_2", "--json", **service
    )
    assert json.loads(dead.stdout)["story"]["processing"]["state"] == "dead"
    said = await until(listening, "dead (")
    assert re.search(r"evt_2 .* dead \(\w+\): .*\. See: tallystick dlq show [0-9a-f-]{36}", said)
    await tallystick("trigger", "stripe", "charge.refunded", "--event-id", "evt_3", "--no-wait", **service)
    await until(listening, "ignored")
    unknown = await tallystick(*paid, "--account", "nobody's", "--event-id", "evt_4", "--json", **service)
    assert json.loads(unknown.stdout)["story"] is None  # the event is not the shop's
    assert "nobody's" in await until(listening, "to be tried again")

    listed = await tallystick("events", "list", "--json", **database)
    assert [(event["event_id"], event["state"], event["outcome"]) for event in json.loads(listed.stdout)] == [
        ("evt_4", "pending", None), ("evt_3", "done", "ignored"), ("evt_2", "dead", ANY), ("evt_1", "done", "applied"),
    ]  # fmt: skip
    for arguments, found in (
        (("--state", "dead", "--since", "1h"), {"evt_2"}),
        (("--type", "charge.refunded"), {"evt_3"}),
        (("--provider", "paypal"), set()),
        (("--limit", "2"), {"evt_4", "evt_3"}),
    ):
        table = (await tallystick("events", "list", *arguments, **database)).stdout
        assert set(re.findall(r"evt_\d", table)) == found, arguments
    shown = (await tallystick("events", "show", "evt_1", **database)).stdout
    for words in (
        "believed    by the signature",
        "shop:main +1500",
        "delivered to http://127.0.0.1",
        '"livemode"',
    ):
        assert words in shown
    story = json.loads((await tallystick("events", "show", "evt_1", "--json", **database)).stdout)
    assert story["receipt"]["event_id"] == "evt_1"
    missing = await tallystick("events", "show", "evt_9", **database)
    assert (missing.returncode, missing.stderr) == (1, "tallystick: There is no event evt_9.\n")

    for process in (listening, tailing):
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, err) == (0, b""), out


async def test_refused_and_unreachable(api: ApiClient, tmp_path: Path) -> None:
    environment = {"STATE_DIR": str(tmp_path), "TALLYSTICK_URL": str(api.make_url("/"))}
    sent = "trigger", "stripe", "payment_intent.succeeded"
    forged = await tallystick(*sent, **environment, STRIPE_SIGNING_SECRET="whsec_of_somebody_else")
    assert (forged.returncode, "400 Invalid signature" in forged.stdout) == (1, True)
    for changes, code, sentence in (
        ({"TALLYSTICK_URL": "http://127.0.0.1:9"}, 1, "does not answer"),
        ({"TALLYSTICK_URL": "127.0.0.1:8080"}, 2, "is no address of a service"),
        ({"TALLYSTICK_URL": "http://ann:s3cret@127.0.0.1:9"}, 2, "takes no user and no password"),
        ({"STRIPE_SIGNING_SECRET": ""}, 2, "STRIPE_SIGNING_SECRET"),
    ):
        done = await perform(sent, environment | {"STRIPE_SIGNING_SECRET": SECRET} | changes, folder=tmp_path)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
        assert "s3cret" not in done.stdout + done.stderr


async def test_a_strangers_words_do_not_speak_to_the_terminal(service: Service, settings: Settings) -> None:
    await service.database.connections.pool.execute(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body)"
        " VALUES ($1, 'source:x', $2, $3, '{}', $4)",
        ids.new_uuid(), "evt\x1b[2J[red]", "type\x07", b'{"a":"\x1b]0;title\x07"}',
    )  # fmt: skip
    database = {"DATABASE_URL": str(settings.database_url)}
    for command in (("list",), ("show", "evt\x1b[2J[red]")):
        said = (await tallystick("events", *command, **database)).stdout
        assert "[2J[red]" in said
        assert not {"\x1b", "\x07"} & set(said)
