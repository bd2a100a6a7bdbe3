"""Dead letters over HTTP: how an event becomes one, and what an administrator does about it."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import metrics
from core.database import queries
from core.inbox import replays
from core.inbox.dead_letters import DeadLetterStream, Filter
from core.inbox.processing import Processor, Retries
from core.inbox.rules import Admission
from core.inbox.verifying import read_moment
from core.settings import Settings
from core.work.leases import Worker
from handlers.app import create_app
from jobs.worker import work
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]
TOKEN = "an-admin-token-of-these-tests"
ADMIN = {"X-Admin-Token": TOKEN}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_token": (TOKEN,)})


async def call(thread: Thread, method: str, path: str, status: int = 200, **more: Any) -> Any:
    answer = await thread.api.request(method, path, **{"headers": ADMIN} | more)
    body = await answer.json(content_type=None)
    assert answer.status == status, body
    return body


async def kill(thread: Thread, *intents: str, account: str | None = "nobody's", **changes: Any) -> list[str]:
    """Let these events die at their first attempt, and return their ids, the oldest first."""
    for intent in intents:
        assert (await thread.send(payment(intent, account, **changes)))[0] == 200
    await process(thread)
    rows = await thread.service.database.connections.pool.fetch(
        "SELECT id FROM inbox_events WHERE state = 'dead' AND event_id = ANY($1) ORDER BY id",
        [f"evt_{intent}" for intent in intents],
    )
    assert len(rows) == len(intents)
    return [str(row["id"]) for row in rows]


async def process(thread: Thread, stream: DeadLetterStream | None = None) -> None:
    service = thread.service
    processor = Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
        retries=Retries(max_attempts=1),
        stream=stream,
    )
    while await processor.step():
        pass


async def make_due(thread: Thread) -> None:
    await thread.service.database.connections.pool.execute("UPDATE replays SET due_at = now()")


def count(action: str) -> int:
    return metrics.totals("dlq_messages_total", "action").get(action, 0)


async def test_from_a_signed_event_to_a_dead_letter_to_one_effect(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    added, retried = count("added"), count("retried")
    await thread.subscribe()
    start_worker(max_attempts=2, base_seconds=0.01)
    assert (await thread.send(payment("pi_1", "shop:main")))[0] == 200
    await eventually(lambda: _is(thread, "evt_pi_1", "dead"))

    (listed,) = (await call(thread, "GET", "/v1/dead-letters"))["data"]
    assert (listed["provider"], listed["event_id"], listed["type"]) == (
        "stripe",
        "evt_pi_1",
        "payment_intent.succeeded",
    )
    assert (listed["reason"], listed["attempts"], listed["replays"]) == ("account_not_found", 2, 0)
    assert listed["last_error"].startswith("account_not_found: ")
    path = f"/v1/dead-letters/{listed['id']}"
    letter = await call(thread, "GET", path)
    assert json.loads(letter["payload"])["id"] == "evt_pi_1"
    assert [(failure["attempt"], failure["code"]) for failure in letter["failures"]] == [
        (2, "account_not_found"),
        (1, "account_not_found"),
    ]
    shown = await (await thread.api.get("/metrics")).text()
    assert "dlq_messages_pending 1.0" in shown
    assert count("added") == added + 1

    await thread.open_account("shop:main")
    answers = await asyncio.gather(*(thread.api.post(f"{path}/replay", headers=ADMIN) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    await eventually(lambda: _is(thread, "evt_pi_1", "done"))
    await eventually(lambda: thread.receiver.deliveries)
    assert await thread.balance("shop:main") == 1500
    assert await thread.service.database.connections.pool.fetchval("SELECT count(*) FROM outbox_events") == 1
    assert len(thread.receiver.deliveries) == 1
    assert count("retried") == retried + 1
    assert (await call(thread, "GET", "/v1/dead-letters"))["data"] == []
    await call(thread, "GET", path, 404)
    refused = await call(thread, "POST", f"{path}/replay", 409)
    assert refused["error"]["code"] == "not_dead"


async def test_what_no_further_try_can_help_dies_at_once(thread: Thread) -> None:
    (letter_id,) = await kill(thread, "pi_1", account="shop:main", amount="many")
    letter = await call(thread, "GET", f"/v1/dead-letters/{letter_id}")
    assert (letter["reason"], letter["attempts"]) == ("unusable_payload", 1)


async def test_a_dead_letter_does_not_hold_up_its_object(thread: Thread) -> None:
    await thread.open_account("shop:main")
    await kill(thread, "pi_1", account="shop:main", amount="many")
    await thread.send(payment("pi_1", "shop:main", event_id="evt_later"))
    await process(thread)
    assert await thread.balance("shop:main") == 1500


async def test_times_beyond_the_calendar_are_refused(thread: Thread) -> None:
    """PostgreSQL's driver writes the ends of the calendar as infinite, and a replay keeps its filter."""
    for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00"):
        for name in ("received_from", "received_before"):
            encoded = time.replace("+", "%2B")
            await call(thread, "GET", f"/v1/dead-letters?{name}={encoded}", 400)
            headers = {**ADMIN, "Content-Type": "application/json"}
            answer = await thread.api.post("/v1/dead-letters/replay", json={name: time}, headers=headers)
            assert answer.status == 400
    assert read_moment("0001-01-01T00:00:00Z") is None
    assert read_moment("9999-12-31T23:59:59.999999Z") is None
    assert read_moment("0002-01-01T00:00:00Z") is not None


async def test_pages_and_filters(thread: Thread) -> None:
    lost = await kill(thread, *(f"pi_{number}" for number in range(5)))
    (unusable,) = await kill(thread, "pi_odd", amount="many")
    seen: list[str] = []
    path = "/v1/dead-letters?limit=2"
    while path:
        page = await call(thread, "GET", path)
        seen += [letter["id"] for letter in page["data"]]
        path = f"/v1/dead-letters?limit=2&cursor={page['next']}" if page["next"] else ""
    assert seen == [unusable, *reversed(lost)]

    async def listed(query: str) -> int:
        return len((await call(thread, "GET", f"/v1/dead-letters?{query}"))["data"])

    assert await listed("reason=account_not_found") == 5
    assert await listed("reason=unusable_payload&provider=stripe&type=payment_intent.succeeded") == 1
    assert await listed("provider=paypal") == 0
    assert await listed("type=charge.refunded") == 0
    assert await listed("received_from=2020-01-01T00:00:00Z") == 6
    assert await listed("received_before=2020-01-01T00:00:00Z") == 0


async def test_a_replay_by_filter_is_capped_and_goes_on_where_it_stood(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = thread.service.database
    lost = await kill(thread, *(f"pi_{number}" for number in range(5)))
    (unusable,) = await kill(thread, "pi_odd", amount="many")
    begun = await call(
        thread, "POST", "/v1/dead-letters/replay", 202, json={"reason": "account_not_found", "per_second": 2}
    )
    assert (begun["state"], begun["matched"], begun["replayed"]) == ("running", 5, 0)
    assert await replays.step(database) == 2
    # The second has not passed.
    assert await replays.step(database) == 0

    with monkeypatch.context() as broken:
        # A worker that dies in the middle of its step leaves nothing half done.
        known = queries("core.inbox.replays")
        text = "SELECT 1 / ($2::bigint * 0), $1::uuid, $3::uuid, $4::boolean"
        failing = {"advance_replay": known.advance_replay._replace(text=text)}
        broken.setattr(known, "_found", known._found | failing)
        await make_due(thread)
        with pytest.raises(Exception, match="division"):
            await replays.step(database)
    assert (await call(thread, "GET", f"/v1/replays/{begun['id']}"))["replayed"] == 2

    # What died again meanwhile is not its work, or a fault that lasts would keep it busy for ever.
    await process(thread)
    for _ in range(3):
        await make_due(thread)
        await replays.step(database)
    ended = await call(thread, "GET", f"/v1/replays/{begun['id']}")
    assert (ended["state"], ended["replayed"], ended["matched"]) == ("done", 5, 5)
    failed = count("failed")
    await process(thread)
    assert count("failed") == failed + 3
    rows = await database.connections.pool.fetch("SELECT id::text, replays FROM inbox_events ORDER BY id")
    assert {row["id"]: row["replays"] for row in rows} == dict.fromkeys(lost, 1) | {unusable: 0}
    letter = await call(thread, "GET", f"/v1/dead-letters/{lost[0]}")
    assert [(action["action"], action["replay"], action["actor"]) for action in letter["actions"]] == [
        ("replayed", begun["id"], "admin")
    ]


async def test_a_worker_drains_a_replay_of_everything(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    await kill(thread, *(f"pi_{number}" for number in range(5)), account="shop:main")
    await thread.open_account("shop:main")
    begun = await call(thread, "POST", "/v1/dead-letters/replay", 202, json={"all": True})
    start_worker()

    async def paid() -> bool:
        return await thread.balance("shop:main") == 5 * 1500

    await eventually(paid)
    ended = await call(thread, "GET", f"/v1/replays/{begun['id']}")
    assert (ended["state"], ended["replayed"]) == ("done", 5)


async def test_a_replay_can_be_stopped(thread: Thread) -> None:
    await kill(thread, *(f"pi_{number}" for number in range(5)))
    begun = await call(thread, "POST", "/v1/dead-letters/replay", 202, json={"all": True, "per_second": 1})
    assert await replays.step(thread.service.database) == 1
    stopped = await call(thread, "POST", f"/v1/replays/{begun['id']}/stop")
    assert (stopped["state"], stopped["replayed"]) == ("stopped", 1)
    await make_due(thread)
    assert await replays.step(thread.service.database) == 0
    again = await call(thread, "POST", f"/v1/replays/{begun['id']}/stop")
    assert again == stopped


async def test_replays_are_listed(thread: Thread) -> None:
    await kill(thread, "pi_1")
    begun = [
        (await call(thread, "POST", "/v1/dead-letters/replay", 202, json={"reason": f"r{number}"}))["id"]
        for number in range(3)
    ]
    first = await call(thread, "GET", "/v1/replays?limit=2")
    rest = await call(thread, "GET", f"/v1/replays?limit=2&cursor={first['next']}")
    assert [replay["id"] for page in (first, rest) for replay in page["data"]] == begun[::-1]
    assert [replay["matched"] for replay in first["data"]] == [0, 0]
    assert rest["next"] is None


async def test_two_workers_do_not_replay_the_same(thread: Thread) -> None:
    await kill(thread, *(f"pi_{number}" for number in range(10)))
    await replays.start(thread.service.database, Filter(), actor="test", per_second=1000)
    steps = await asyncio.gather(*(replays.step(thread.service.database) for _ in range(4)))
    # Ten letters and the end of the replay, by one of them.
    assert sorted(steps) == [0, 0, 0, 11]


async def test_discarding_closes_a_letter_for_a_reason(thread: Thread) -> None:
    discarded = count("discarded")
    (letter,) = await kill(thread, "pi_1")
    path = f"/v1/dead-letters/{letter}/discard"
    await call(thread, "POST", path, 400, json={})
    await call(thread, "POST", path, 400, json={"reason": ""})
    body = await call(thread, "POST", path, json={"reason": "a test of theirs"})
    assert body == {"id": letter, "state": "discarded"}
    assert count("discarded") == discarded + 1
    await call(thread, "POST", path, 409, json={"reason": "again"})
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"]) == ("done", "discarded")
    told = await call(thread, "GET", "/events/evt_pi_1")
    (action,) = told["processing"]["actions"]
    assert (action["action"], action["reason"], action["actor"]) == ("discarded", "a test of theirs", "admin")


async def test_the_stream_of_redis_is_told_too(thread: Thread) -> None:
    service = thread.service
    stream = DeadLetterStream(service.redis, service.epoch)
    await thread.send(payment("pi_1", "nobody's"))
    await process(thread, stream)
    ((_, fields),) = await service.redis.xrange(stream.key)
    assert fields[b"event_id"] == b"evt_pi_1"
    assert fields[b"reason"] == b"account_not_found"
    assert b"payload" not in fields


async def test_a_worker_with_the_setting_writes_the_stream(
    thread: Thread, settings: Settings, eventually: Eventually
) -> None:
    stopping = asyncio.Event()
    redis = settings.model_copy(update={"dlq_backend": "redis", "inbox_max_attempts": 1})
    running = asyncio.create_task(work(redis, stopping))
    await thread.send(payment("pi_1", "nobody's"))
    key = DeadLetterStream(thread.service.redis, thread.service.epoch).key
    try:
        await eventually(lambda: thread.service.redis.xlen(key))
    finally:
        stopping.set()
        await running
    assert (await thread.inbox("evt_pi_1"))["state"] == "dead"


ROUTES = [
    ("GET", "/v1/dead-letters"),
    ("GET", f"/v1/dead-letters/{uuid.UUID(int=1)}"),
    ("POST", f"/v1/dead-letters/{uuid.UUID(int=1)}/replay"),
    ("POST", f"/v1/dead-letters/{uuid.UUID(int=1)}/discard"),
    ("POST", "/v1/dead-letters/replay"),
    ("GET", "/v1/replays"),
    ("GET", f"/v1/replays/{uuid.UUID(int=1)}"),
    ("POST", f"/v1/replays/{uuid.UUID(int=1)}/stop"),
    ("GET", "/reconciliation/summary"),
    ("GET", "/admin/events"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_the_admin_token_opens_it(thread: Thread, method: str, path: str) -> None:
    for headers in (
        {},
        {"X-Admin-Token": ""},
        {"X-Admin-Token": "é"},
        {"X-Admin-Token": TOKEN + "x"},
        {"Authorization": f"Bearer {thread.key}"},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        body = await call(thread, method, path, 401, headers=headers)
        assert body["error"]["code"] == "unauthorized"
    answer = await thread.api.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status in {200, 400, 404}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/dead-letters?limit=0", None),
        ("GET", "/v1/dead-letters?limit=1001", None),
        ("GET", "/v1/dead-letters?cursor=1", None),
        ("GET", "/v1/dead-letters?provider=", None),
        ("GET", "/v1/dead-letters?provider=a%00", None),
        ("GET", "/v1/dead-letters?received_from=yesterday", None),
        ("GET", "/v1/dead-letters?received_from=2020-01-01T00:00:00", None),
        ("GET", "/v1/dead-letters?unknown=1", None),
        ("GET", "/v1/dead-letters/1", None),
        ("POST", "/v1/dead-letters/replay", {}),
        ("POST", "/v1/dead-letters/replay", {"all": False}),
        ("POST", "/v1/dead-letters/replay", {"all": True, "reason": "x"}),
        ("POST", "/v1/dead-letters/replay", {"all": True, "per_second": 0}),
        ("POST", "/v1/dead-letters/replay", {"all": True, "per_second": 1001}),
        ("POST", "/v1/dead-letters/replay", {"everything": True}),
        ("POST", f"/v1/dead-letters/{uuid.UUID(int=1)}/discard", {"reason": "x" * 501}),
    ],
)
async def test_bad_input(thread: Thread, method: str, path: str, body: Any) -> None:
    refused = await call(thread, method, path, 400, **({} if body is None else {"json": body}))
    assert refused["error"]["code"] == "invalid_request"


async def test_without_a_token_in_the_settings_there_is_no_administrator(
    thread: Thread, settings: Settings
) -> None:
    nobody = settings.model_copy(update={"admin_token": ()})
    async with TestClient(TestServer(create_app(nobody, thread.service))) as client:
        for token in ("", TOKEN):
            answer = await client.get("/v1/dead-letters", headers={"X-Admin-Token": token})
            assert answer.status == 401


async def _is(thread: Thread, event_id: str, state: str) -> bool:
    return bool((await thread.inbox(event_id))["state"] == state)
