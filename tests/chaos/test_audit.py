"""The checker of the chaos runs, checked: it finds nothing in a sound service, and each fault that is planted there."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient, TestServer

from core.access.api_keys import SCOPES, create_key
from core.database import open_database
from core.ledger.items import Leg, Posting, operation_id
from core.service import Service, open_service
from core.settings import Settings, load_settings
from handlers.app import create_app
from jobs.worker import work
from loadtests.chaos import provider as provider_module
from loadtests.chaos import receiver as receiver_module
from loadtests.chaos.audit import CHECKS, Evidence, collect, delivered, judge, undone
from loadtests.chaos.plan import SHOPS, Event, Plan, events
from loadtests.chaos.provider import CURRENCY, SECRET, Journal, Provider, shop_account
from loadtests.chaos.receiver import Receiver, read_lines
from ops.embedded import EmbeddedServers
from tests.conftest import Administer, ApiClient

pytestmark = pytest.mark.drill

EVENTS = 60
SETTINGS = {
    "stripe_signing_secrets": (SECRET,),
    "outbound_allow_hosts": ("127.0.0.0/8",),
    "webhook_base_delay_secs": 0.05,
    "shutdown_timeout_secs": 2,
}
STREAMED = "audit_streamed"
CLEARING = f"provider:stripe:clearing:{CURRENCY}"

Wait = Callable[..., Awaitable[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update=SETTINGS)


@dataclass
class Stream:
    """A stream of events that a service has taken, and what is known of it from outside."""

    keys: list[str]
    journal: Journal
    log: Path
    """The receiver, which goes on, appends to this file."""
    received: bytes
    """The receiver's file when the stream had ended."""


@dataclass
class World:
    """A service that has taken a stream of events, and what is known of it from outside."""

    api: ApiClient
    service: Service
    keys: list[str]
    journal: Journal
    log: Path
    owner: "asyncpg.Connection[asyncpg.Record]"
    database_url: str

    @property
    def victim(self) -> Event:
        """One of the events that were acknowledged."""
        return next(iter(self.journal.sent.values()))

    async def evidence(self) -> Evidence:
        accounts = [(shop, shop_account(shop)) for shop in range(SHOPS)] + [(0, CLEARING)]
        balances = {}
        for shop, code in accounts:
            headers = {"Authorization": f"Bearer {self.keys[shop]}"}
            answer = await self.api.get(f"/v1/accounts/{code}", headers=headers)
            balances[code] = (await answer.json())["balance"]
        lines = read_lines(self.log.read_bytes())
        return await collect(self.owner, self.database_url, self.journal, lines, balances)

    async def found(self) -> set[str]:
        return {finding.check for finding in judge(await self.evidence())}


@pytest.fixture(scope="module")
async def template(template: str, administer: Administer) -> AsyncIterator[str]:
    """The name of the database that takes the stream; the database of each test is a copy of it."""
    await administer(f"CREATE DATABASE {STREAMED} TEMPLATE {template} STRATEGY file_copy")
    yield STREAMED
    await administer(f"DROP DATABASE {STREAMED} WITH (FORCE)")


@pytest.fixture(scope="module")
async def stream(
    servers: EmbeddedServers, template: str, tmp_path_factory: pytest.TempPathFactory, eventually: Wait
) -> AsyncIterator[Stream]:
    """The stream, sent and delivered; nothing has a connection to the database any more, so that it can be copied."""
    folder = tmp_path_factory.mktemp("stream")
    log = folder / "received"
    log.touch()
    url = servers.postgres.url(template)
    servers.valkey.start()
    settings = load_settings(
        env_file=None, env="test", database_url=url, redis_url=servers.valkey.url(0), state_dir=str(folder)
    ).model_copy(update=SETTINGS)
    secrets: list[str] = []
    app = web.Application()
    app.router.add_post("/hooks/{shop}", Receiver(secrets, log, seed=1).receive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receiver_module, "MOODS", {"unwell": 0.05, "hang up": 0.05})
        patch.setattr(provider_module, "LATE_SECONDS", 0.1)
        async with TestServer(app) as hooks:
            async with (
                open_service(settings) as service,
                TestClient(TestServer(create_app(settings, service))) as api,
                working(settings),
            ):
                keys = await _make_keys(settings)
                secrets += [await _open_shop(api, hooks, shop, key) for shop, key in enumerate(keys)]
                journal = await _send_all(api)
                intents = set(journal.genuine())
                await eventually(lambda: delivered(read_lines(log.read_bytes())) == intents, timeout=30)
                owner = await asyncpg.connect(url)
                await eventually(lambda: _nothing_is_left(owner))
                await owner.close()
            yield Stream(keys, journal, log, log.read_bytes())


async def _make_keys(settings: Settings) -> list[str]:
    database = await open_database(settings, role=None, size=2)
    made = [await create_key(database, f"shop {shop}", SCOPES) for shop in range(SHOPS)]
    await database.close()
    return [key for key, _ in made]


async def _open_shop(api: ApiClient, hooks: BaseTestServer, shop: int, key: str) -> str:
    """Make the account and the endpoint of a shop; return the endpoint's secret."""
    headers = {"Authorization": f"Bearer {key}"}
    account = {"code": shop_account(shop), "currency": CURRENCY}
    assert (await api.post("/v1/accounts", json=account, headers=headers)).status == 201
    endpoint = {"url": str(hooks.make_url(f"/hooks/{shop}")), "event_types": ["payment.succeeded"]}
    answer = await api.post("/v1/webhook-endpoints", json=endpoint, headers=headers)
    return str((await answer.json())["secret"])


async def _send_all(api: ApiClient) -> Journal:
    plan = Plan(seed=3, events=EVENTS, rate=1000)
    async with aiohttp.ClientSession() as session:
        provider = Provider(plan, events(plan), str(api.make_url("")).rstrip("/"), session)
        await provider.release(EVENTS)
        await provider.run()
    return provider.journal


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    worker = asyncio.create_task(work(settings, stopping))
    try:
        yield
    finally:
        stopping.set()
        await worker


@pytest.fixture
async def world(
    stream: Stream, settings: Settings, service: Service, api: ApiClient, database_url: str
) -> AsyncIterator[World]:
    """A service on a copy of the database that took the stream, with a worker of its own."""
    stream.log.write_bytes(stream.received)
    owner = await asyncpg.connect(database_url)
    async with working(settings):
        yield World(api, service, stream.keys, deepcopy(stream.journal), stream.log, owner, database_url)
    await owner.close()


async def _nothing_is_left(owner: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return await undone(owner) == 0


async def test_nothing_is_found_in_a_sound_service(world: World) -> None:
    assert judge(await world.evidence()) == []
    messages = [message for found in world.journal.acknowledged.values() for message in found]
    assert set(messages) == {"received", "duplicate ignored"}
    assert len(world.journal.sent) + len(world.journal.forged) == EVENTS


async def test_an_acknowledged_event_that_is_gone_is_found(world: World) -> None:
    await world.owner.execute("DELETE FROM inbox_events WHERE event_id = $1", world.victim.id)
    assert await world.found() == {"lost_at_the_door"}


async def test_an_event_that_was_finished_without_its_effect_is_found(world: World) -> None:
    lost = Event(EVENTS, "evt_lost", "pi_lost", 0, 500, "once")
    world.journal.sent[lost.id] = lost
    world.journal.acknowledged[lost.id] = ["received"]
    await world.owner.execute(
        "INSERT INTO inbox_events (id, provider, event_id, event_type, headers, body, state, outcome, finished_at)"
        " VALUES (gen_random_uuid(), 'stripe', 'evt_lost', 'payment_intent.succeeded', '{}', '', 'done', 'applied',"
        " now())"
    )
    assert await world.found() == {"not_posted", "wrong_balance"}


async def test_an_event_that_was_given_up_is_found(world: World) -> None:
    await world.owner.execute(
        "UPDATE inbox_events SET state = 'dead', outcome = 'worker_lost' WHERE event_id = $1", world.victim.id
    )
    assert await world.found() == {"not_processed"}


async def test_a_payment_that_was_posted_twice_is_found(world: World) -> None:
    """The books agree, and `verify` is content: only who knows what was sent can tell."""
    victim = world.victim
    account = shop_account(victim.shop)
    double = Posting(
        id=operation_id(0, "another key"),
        principal_id=0,
        legs=(Leg(CLEARING, -victim.amount), Leg(account, victim.amount)),
        currency=CURRENCY,
        kind="stripe.payment",
        reference=victim.intent,
    )
    async with world.service.database.transaction() as connection:
        (outcome,) = await world.service.ledger.post_within(connection, [double])
    assert outcome.posted
    assert await world.found() == {"posted_twice", "wrong_balance"}


async def test_an_event_that_was_told_of_twice_is_found(world: World, eventually: Wait) -> None:
    before = len(world.log.read_bytes().splitlines())
    await world.owner.execute(
        "INSERT INTO outbox_events (id, principal_id, event_type, object_id, body)"
        " SELECT gen_random_uuid(), principal_id, event_type, object_id, body FROM outbox_events"
        " WHERE object_id = $1",
        world.victim.intent,
    )
    await eventually(lambda: len(world.log.read_bytes().splitlines()) > before, timeout=30)
    assert await world.found() == {"emitted_twice", "delivered_under_two_ids"}


async def test_what_the_receiver_did_not_get_or_got_otherwise_is_found(world: World) -> None:
    sound = await world.evidence()
    intent, last = world.victim.intent, sound.received[-1]
    others = [line for line in sound.received if line.intent != intent]
    refused = [msgspec.structs.replace(line, answer=503) for line in sound.received if line.intent == intent]
    for received, check in (
        (others, "not_delivered"),
        ([*others, *refused], "not_delivered"),
        ([*sound.received, msgspec.structs.replace(last, digest="other")], "delivered_changed"),
        ([*sound.received, msgspec.structs.replace(last, id="other")], "delivered_under_two_ids"),
        ([*sound.received, msgspec.structs.replace(last, problem="it is wrong")], "signature_wrong"),
        ([*sound.received, msgspec.structs.replace(last, intent="pi_other")], "delivered_unasked"),
    ):
        (finding,) = judge(dataclasses.replace(sound, received=received))
        assert (finding.check, finding.count) == (check, 1)


async def test_a_forged_event_that_got_in_is_found(world: World) -> None:
    forged = Event(EVENTS, "evt_forged", "pi_forged", 0, 500, "forged")
    world.journal.forged[forged.id] = forged
    answer = await _send(world, forged, SECRET)
    assert answer == 200
    assert "forged_accepted" in await world.found()


async def test_a_balance_that_was_altered_is_found(world: World) -> None:
    await world.owner.execute("UPDATE accounts SET balance = balance + 1 WHERE code = $1", shop_account(0))
    assert {"wrong_balance", "ledger", "books"} <= await world.found()


@pytest.mark.parametrize(
    ("messages", "unexpected", "check"),
    [(["received", "received"], [], "new_twice"), (["received"], ["evt: 500 oops"], "unexpected_answer")],
)
def test_answers_are_judged(messages: list[str], unexpected: list[str], check: str) -> None:
    journal = Journal(forged={}, acknowledged={"evt": messages}, unexpected=unexpected)
    evidence = Evidence(
        journal, inbox={}, posted=[], emitted=[], received=[], balances={}, no_comeback=["api.kill"]
    )
    assert [finding.check for finding in judge(evidence)] == [check, "no_comeback"]
    assert CHECKS.keys() >= {check}


async def _send(world: World, event: Event, secret: str) -> int:
    async with aiohttp.ClientSession() as session:
        provider = Provider(Plan(events=1), [event], str(world.api.make_url("")).rstrip("/"), session)
        await provider._deliver(event, secret)
    world.journal.acknowledged |= provider.journal.acknowledged
    return int(next(iter(provider.journal.statuses)))
