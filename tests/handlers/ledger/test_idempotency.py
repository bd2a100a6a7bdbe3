"""Idempotency over HTTP: one effect and one answer a key, whatever Redis remembers and whichever process is asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop, connections, row_counts
from tests.invariants import faults

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
GOOD = {"from": "cash", "to": "a", "amount": 5, "reference": "r", "metadata": {"x": "1", "y": "2"}}
REPLAYED = "Idempotent-Replayed"


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    found = Shop(api, await api_key())
    await found.open("cash", floor=None)
    await found.open("a", "b")
    return found


@pytest.fixture
async def elsewhere(settings: Settings, shop: Shop) -> AsyncIterator[Shop]:
    """The same shop at another process: its own pool, lane, guard and memory, over the same servers."""
    async with TestClient(TestServer(create_app(settings))) as client:
        yield Shop(client, shop.key)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Connection]:
    """A connection of the test's own, as the owner of the schema."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
async def sound_books(database_url: str, shop: Shop) -> Any:
    """Whatever a test does, the books are sound after it."""
    yield
    assert await faults(database_url) == {}


async def wipe(redis: Redis, eventually: Callable[..., Awaitable[Any]]) -> None:
    """Empty Redis once the finished answers have reached it, so that none of them is on its way there."""
    await eventually(lambda: _at_rest(redis))
    await redis.flushdb()


async def _at_rest(redis: Redis) -> bool:
    """Whether every idempotency key in Redis holds an answer and not the mark of a call at work."""
    names = [name async for name in redis.scan_iter(match="*once:*")]
    values = [await redis.get(name) for name in names]
    return all(value is None or value.startswith(b"A") for value in values)


async def test_the_same_bytes_for_ever(
    shop: Shop, elsewhere: Shop, redis: Redis, eventually: Callable[..., Awaitable[Any]]
) -> None:
    original = (await shop.transfer("cash", "a", 10)).json["id"]
    hold = (await shop.post("/v1/holds", {"from": "cash", "to": "b", "amount": 9})).json["id"]
    calls: list[tuple[str, Any, int, str]] = [
        ("/v1/transfers", GOOD, 201, ""),
        ("/v1/transfers", {"from": "a", "to": "b", "amount": 1000}, 422, "insufficient_funds"),
        ("/v1/transfers", GOOD | {"conditions": [{"account": "a", "version": 99}]}, 409, "version_mismatch"),
        (f"/v1/transfers/{original}/reversals", {"amount": 4}, 201, ""),
        (f"/v1/transfers/{original}/reversals", {"amount": 7}, 422, "exceeds_reversible"),
        ("/v1/holds", {"from": "cash", "to": "b", "amount": 5, "expires_in": 600}, 201, ""),
        (f"/v1/holds/{hold}/capture", {"amount": 2}, 201, ""),
        (f"/v1/holds/{hold}/capture", {"amount": 8}, 422, "exceeds_hold"),
        (f"/v1/holds/{hold}/extend", {"expires_in": 700}, 200, ""),
        (f"/v1/holds/{hold}/void", None, 200, ""),
    ]
    first = [await shop.post(path, body, key=f"k-{n}") for n, (path, body, *_) in enumerate(calls)]
    for answer, (path, _, status, code) in zip(first, calls, strict=True):
        assert answer.status == status, path
        assert not code or answer.code == code
        assert REPLAYED not in answer.headers
    # Everything that the refusals depended on is different by now.
    await shop.transfer("cash", "a", 5_000)
    await shop.post(f"/v1/transfers/{original}/reversals")
    for place, asked in (
        ("here", shop),
        ("elsewhere", elsewhere),
        ("after a wipe", shop),
        ("there too", elsewhere),
    ):
        if place == "after a wipe":
            await wipe(redis, eventually)
        for n, (path, body, status, _) in enumerate(calls):
            again = await asked.post(path, body, key=f"k-{n}")
            assert (again.status, again.body) == (status, first[n].body), (place, path)
            assert again.headers["Content-Type"] == first[n].headers["Content-Type"]
            assert status >= 400 or again.headers[REPLAYED] == "true"


async def test_another_spelling_of_the_same_body(shop: Shop) -> None:
    first = await shop.post("/v1/transfers", GOOD | {"effective_at": "2025-01-01T00:00:00Z"}, key="k")
    turned = {
        "metadata": {"y": "2", "x": "1"}, "amount": 5, "effective_at": "2025-01-01T02:00:00.000+02:00",
        "reference": "r", "to": "a", "from": "cash", "kind": "transfer", "conditions": [],
    }  # fmt: skip
    as_legs = {name: value for name, value in turned.items() if name not in {"from", "to", "amount"}}
    as_legs["legs"] = [{"account": "cash", "amount": -5}, {"account": "a", "amount": 5}]
    for body in (turned, as_legs):
        again = await shop.call("POST", "/v1/transfers", data=json.dumps(body, indent=3).encode(), key="k")
        assert (again.status, again.body) == (201, first.body)
    assert await shop.balance("a") == 5


async def test_another_body_names_what_differs(shop: Shop, elsewhere: Shop, redis: Redis) -> None:
    first = await shop.post("/v1/transfers", GOOD, key="k")
    others: list[tuple[dict[str, Any], list[str]]] = [
        ({"amount": 6}, ["legs"]),
        ({"to": "b"}, ["legs"]),
        ({"currency": "USD"}, ["currency"]),
        ({"kind": "sale"}, ["kind"]),
        ({"reference": "s"}, ["reference"]),
        ({"metadata": {"x": "1"}}, ["metadata"]),
        ({"effective_at": "2025-01-01T00:00:00Z"}, ["effective_at"]),
        ({"conditions": [{"account": "a", "version": 0}]}, ["conditions"]),
        ({"amount": 6, "kind": "sale"}, ["legs", "kind"]),
    ]
    for n in range(2):
        for asked in (shop, elsewhere):
            for change, differs in others:
                answer = await asked.post("/v1/transfers", GOOD | change, key="k")
                assert (answer.status, answer.code) == (409, "idempotency_conflict")
                assert answer.json["differs"] == differs
                assert " and ".join(differs) in answer.json["detail"]
        if n == 0:
            await redis.flushdb()
    as_hold = await shop.post("/v1/holds", {"from": "cash", "to": "a", "amount": 5}, key="k")
    assert (as_hold.status, as_hold.code) == (409, "idempotency_conflict")
    refused = await shop.transfer("a", "b", 1_000, key="refused")
    assert refused.code == "insufficient_funds"
    assert (await shop.transfer("a", "b", 1, key="refused")).json["differs"] == ["legs"]
    again = await shop.post("/v1/transfers", GOOD, key="k")
    assert (again.status, again.body) == (201, first.body)


async def test_32_equal_calls_at_once(shop: Shop, elsewhere: Shop, service: Service) -> None:
    for source, status in (("cash", 201), ("b", 422)):
        answers = await asyncio.gather(
            *(
                asked.transfer(source, "a", 7, key=f"twin-{source}")
                for _ in range(16)
                for asked in (shop, elsewhere)
            )
        )
        assert {answer.status for answer in answers} == {status}
        assert len({answer.body for answer in answers}) == 1
        if status == 201:
            assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert await shop.balance("a") == 7
    counts = await row_counts(service)
    assert (counts["transfers"], counts["entries"], counts["keys"], counts["refusals"]) == (1, 2, 2, 1)


async def test_32_equal_calls_at_once_without_redis(
    settings: Settings, shop: Shop, service: Service, eventually: Callable[..., Awaitable[Any]]
) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with (
        TestClient(TestServer(create_app(away))) as one,
        TestClient(TestServer(create_app(away))) as two,
    ):
        shops = [Shop(one, shop.key), Shop(two, shop.key)]
        answers = await asyncio.gather(
            *(asked.transfer("cash", "a", 7, key="twin") for _ in range(16) for asked in shops)
        )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert (await row_counts(service))["transfers"] == 1


async def test_different_calls_at_once_under_one_key(shop: Shop, elsewhere: Shop, service: Service) -> None:
    answers = await asyncio.gather(
        *(asked.transfer("cash", "a", n, key="k") for n in range(1, 17) for asked in (shop, elsewhere))
    )
    posted = [answer for answer in answers if answer.status == 201]
    assert len({answer.body for answer in posted}) == 1
    others = [answer for answer in answers if answer.status != 201]
    assert {(answer.status, answer.code) for answer in others} == {(409, "idempotency_conflict")}
    assert (await row_counts(service))["transfers"] == 1


async def test_batches_with_the_same_keys_at_once(shop: Shop, elsewhere: Shop, service: Service) -> None:
    items = [{"key": f"i-{n}", "from": "cash", "to": "ab"[n % 2], "amount": 1} for n in range(200)]
    orders = [items, items[::-1], items[100:] + items[:100], items]
    answers = await asyncio.gather(
        *(
            asked.call("POST", "/v1/transfers/batch", {"transfers": order})
            for asked, order in zip((shop, elsewhere, shop, elsewhere), orders, strict=True)
        )
    )
    found = []
    for answer in answers:
        assert (answer.status, answer.json["posted"]) == (200, 200)
        found.append({result["key"]: result["transfer"] for result in answer.json["results"]})
    assert all(each == found[0] for each in found)
    assert (await row_counts(service))["transfers"] == 200


async def test_what_is_not_final_leaves_the_key_free(shop: Shop) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"to": "later"}, "account_not_found"),
        ({"legs": [{"account": "cash", "amount": -5}, {"account": "a", "amount": 4}]}, "legs_unbalanced"),
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"amount": 0}, "invalid_request"),
    ]
    for change, code in refusals:
        body = GOOD | change
        if "legs" in change:
            body = {name: value for name, value in body.items() if name not in {"from", "to", "amount"}}
        assert (await shop.post("/v1/transfers", body, key="k")).code == code
    await shop.open("later")
    answer = await shop.post("/v1/transfers", GOOD | {"to": "later"}, key="k")
    assert (answer.status, REPLAYED in answer.headers) == (201, False)
    await shop.call("PATCH", "/v1/accounts/a", {"state": "frozen"})
    assert (await shop.post("/v1/transfers", GOOD, key="j")).code == "account_frozen"
    await shop.call("PATCH", "/v1/accounts/a", {"state": "open"})
    assert (await shop.post("/v1/transfers", GOOD, key="j")).status == 201


async def test_keys_belong_to_the_principal(
    shop: Shop, api: ApiClient, api_key: Callable[..., Awaitable[str]]
) -> None:
    first = await shop.post("/v1/transfers", GOOD, key="k")
    renewed = Shop(api, await api_key("transfers:write"))
    again = await renewed.post("/v1/transfers", GOOD, key="k")
    assert (again.body, again.headers[REPLAYED]) == (first.body, "true")
    stranger = Shop(api, await api_key(principal="another"))
    other = await stranger.post("/v1/transfers", GOOD, key="k")
    assert (other.status, REPLAYED in other.headers) == (201, False)
    assert other.json["id"] != first.json["id"]
    assert await shop.balance("a") == 10


async def test_keys_of_any_printable_form(shop: Shop) -> None:
    keys = ["k", "K", " k", "k" * 255, "~!@#$%^&*(){}[]|:;<>,.?/'\"", "0"]
    answers: list[Answer] = [await shop.transfer("cash", "a", 1, key=key) for key in keys]
    # A blank at the edge of a header's value is no part of it.
    assert [REPLAYED in answer.headers for answer in answers] == [False, False, True, False, False, False]
    assert await shop.balance("a") == 5


async def test_client_that_hangs_up_in_the_middle(
    shop: Shop, service: Service, owner: Connection, eventually: Callable[..., Awaitable[Any]]
) -> None:
    body = json.dumps(GOOD).encode()
    head = (
        f"POST /v1/transfers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shop.key}\r\nIdempotency-Key: k\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    others = connections(shop.api)
    # In the middle of the body: nothing happens, and the key stays free.
    _, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
    writer.write(head + body[:-1])
    await writer.drain()
    writer.transport.abort()
    await eventually(lambda: connections(shop.api) == others)
    assert (await row_counts(service))["transfers"] == 0
    # While the posting waits for a row that somebody else has locked: it is done all the same, once.
    async with owner.transaction():
        await owner.execute("SELECT FROM accounts WHERE code = 'a' FOR UPDATE")
        _, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
        writer.write(head + body)
        await eventually(lambda: owner.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        writer.transport.abort()
    answer = await shop.post("/v1/transfers", GOOD, key="k")
    assert answer.status == 201
    assert answer.json["entries"][1]["version"] == 1
    assert await shop.balance("a") == 5


async def test_a_refusal_that_postgresql_repeats_says_so(shop: Shop) -> None:
    body = {"from": "a", "to": "b", "amount": 10**9}
    first = await shop.post("/v1/transfers", body, key="broke")
    # Spelled otherwise, so that Redis does not know it.
    again = await shop.post("/v1/transfers", {**body, "reference": None}, key="broke")
    assert (first.status, again.status, again.body) == (422, 422, first.body)
    assert (first.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
