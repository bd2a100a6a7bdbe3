"""The feed over HTTP: every event once, in order, without gaps, by a cursor, waiting where there is nothing yet."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from core.ledger.holds import expire_due
from core.ledger.sealing import seal_once
from core.service import Service
from tests.handlers.ledger.ledger_client import ApiClient, Shop


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    return Shop(api, await api_key())


async def seal(service: Service) -> None:
    while await seal_once(service.database):
        pass


async def read(shop: Shop, **query: Any) -> Any:
    answer = await shop.get("/v1/feed", **query)
    assert answer.status == 200, answer
    return answer.json


async def test_feed_before_anything_has_happened(shop: Shop, service: Service) -> None:
    assert await read(shop) == {"data": [], "next": 0, "head": 0, "epoch": service.epoch}
    assert await read(shop, after=7) == {"data": [], "next": 7, "head": 0, "epoch": service.epoch}


async def test_every_kind_of_event(shop: Shop, service: Service) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a", "b")
    await shop.call("PATCH", "/v1/accounts/b", {"metadata": {"x": "y"}})
    posted = (await shop.transfer("cash", "a", 100, reference="r", metadata={"n": "1"})).json
    back = (await shop.post(f"/v1/transfers/{posted['id']}/reversals", {"amount": 10})).json
    hold = (await shop.post("/v1/holds", {"from": "a", "to": "b", "amount": 50})).json
    captured = (await shop.post(f"/v1/holds/{hold['id']}/capture", {"amount": 20})).json
    await shop.post(f"/v1/holds/{hold['id']}/extend", {"expires_in": 1000})
    await shop.post(f"/v1/holds/{hold['id']}/void")
    over = (
        await shop.post(
            "/v1/holds", {"from": "a", "to": "b", "amount": 1, "expires_at": "2020-01-01T00:00:00Z"}
        )
    ).json
    await expire_due(service.database)
    await seal(service)
    page = await read(shop)
    events = page["data"]
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert (page["next"], page["head"]) == (len(events), len(events))
    assert [event["type"] for event in events] == [
        *["account.created"] * 3, "account.updated", "transfer.posted", "transfer.reversed", "hold.created",
        "hold.captured", "hold.extended", "hold.voided", "hold.created", "hold.expired",
    ]  # fmt: skip
    assert events[0]["data"]["account"] == "cash"
    assert events[3]["data"]["metadata"] == {"x": "y"}
    assert events[4]["data"] == posted
    assert events[5]["data"] == back
    assert events[7]["data"]["transfer"] == captured["transfer"]
    assert (events[7]["data"]["captured"], events[7]["data"]["amount"]) == (20, 20)
    assert {event["data"]["hold"] for event in events[6:10]} == {hold["id"]}
    assert events[11]["data"]["hold"] == over["id"]
    times = [datetime.fromisoformat(event["recorded_at"]) for event in events]
    assert times == sorted(times)


async def test_paging_to_the_end_over_batches_of_any_size(shop: Shop, service: Service) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a")
    keys = itertools.count()

    def items(count: int) -> dict[str, Any]:
        return {
            "transfers": [
                {"key": f"b-{next(keys)}", "from": "cash", "to": "a", "amount": 1} for _ in range(count)
            ]
        }

    for size in (1, 40, 3, 700):
        assert (await shop.call("POST", "/v1/transfers/batch", items(size))).json["posted"] == size
        await shop.transfer("a", "nobody", 1)  # a refusal is no event
        await asyncio.gather(*(shop.transfer("cash", "a", 1) for _ in range(9)))
        await seal(service)
    found: list[Any] = []
    for limit in (1, 17, 500, 1000):
        after: int = 770 if limit == 1 else 0
        found = []
        while True:
            page = await read(shop, after=after, limit=limit)
            assert len(page["data"]) <= limit
            assert page["head"] == 2 + 744 + 36
            if not page["data"]:
                break
            found += page["data"]
            after = page["next"]
        first = 771 if limit == 1 else 1
        assert [event["position"] for event in found] == list(range(first, 783))
        assert len({event["data"].get("id", event["position"]) for event in found}) == len(found)
    versions = [
        event["data"]["entries"][1]["version"] for event in found if event["type"] == "transfer.posted"
    ]
    assert versions == list(range(1, 781))


async def test_wait_answers_as_soon_as_there_is_something(shop: Shop, service: Service) -> None:
    waiting = asyncio.create_task(read(shop, wait=30))
    await asyncio.sleep(0)
    await shop.open("a")
    await seal(service)
    page = await asyncio.wait_for(waiting, 20)
    assert ([event["type"] for event in page["data"]], page["next"]) == (["account.created"], 1)
    assert (await read(shop, wait=30))["next"] == 1


async def test_wait_ends_with_nothing(shop: Shop) -> None:
    assert (await read(shop, wait=1))["data"] == []


async def test_readers_see_no_gap_while_others_post_and_seal(shop: Shop, service: Service) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a", "b")
    done = asyncio.Event()

    async def post(target: str) -> None:
        for _ in range(60):
            await shop.transfer("cash", target, 1)

    async def sealer() -> None:
        while not done.is_set():
            await seal_once(service.database)

    async def reader() -> list[Any]:
        after = 0
        found: list[Any] = []
        while len(found) < 3 + 240:
            page = await read(shop, after=after, limit=50, wait=1)
            found += page["data"]
            after = page["next"]
        return found

    sealers = [asyncio.create_task(sealer()) for _ in range(2)]
    readers = [asyncio.create_task(reader()) for _ in range(2)]
    await asyncio.gather(*(post(target) for target in "abab"))
    first, second = await asyncio.wait_for(asyncio.gather(*readers), 60)
    done.set()
    await asyncio.gather(*sealers)
    assert [event["position"] for event in first] == list(range(1, 244))
    assert first == second
    versions: dict[str, int] = {}
    for event in first[3:]:
        for entry in event["data"]["entries"]:
            assert entry["version"] == versions.get(entry["account"], 0) + 1
            versions[entry["account"]] = entry["version"]


async def test_bad_queries(shop: Shop) -> None:
    for query in (
        "after=-1",
        "after=x",
        "limit=0",
        "limit=1001",
        "wait=-1",
        "wait=31",
        "wait=0.5",
        "cursor=1",
    ):
        answer = await shop.get(f"/v1/feed?{query}")
        assert (answer.status, answer.code) == (400, "invalid_request"), query


async def test_last_position_there_can_be(shop: Shop) -> None:
    assert (await read(shop, after=2**63 - 1))["next"] == 2**63 - 1
