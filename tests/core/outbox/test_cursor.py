"""Reading events by a cursor: in order, without gaps, and without missing what is committed late."""

import asyncio
import json

import pytest

from core.outbox import cursor
from core.outbox.events import new_event, write_events
from core.outbox.fanout import fan_out
from tests.core.outbox.office import Office, OpenOffice
from tests.jobs.merchant import Receiver


async def test_events_are_read_in_order_and_are_what_is_delivered(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    for number in range(7):
        await office.emit("a.b", {"number": number, "text": "Zürich ✓"})
    none = {"data": [], "next": 0, "head": 0, "epoch": office.service.epoch}
    assert await office.get("/v1/events") == none
    await office.deliver()
    seen = []
    after = 0
    while True:
        page = await office.get(f"/v1/events?after={after}&limit=3")
        if not page["data"]:
            break
        seen += page["data"]
        after = page["next"]
    assert [event["position"] for event in seen] == list(range(1, 8))
    assert [event["data"]["number"] for event in seen] == list(range(7))
    assert (page["next"], page["head"]) == (7, 7)
    sent = {delivery.headers["webhook-id"]: json.loads(delivery.body) for delivery in receiver.deliveries}
    assert {event["id"]: {"type": event["type"], "data": event["data"]} for event in seen} == sent


async def test_what_is_committed_late_is_behind_no_cursor(office: Office) -> None:
    database = office.service.database
    async with database.transaction() as slow:
        await write_events(slow, [new_event(office.principal_id, "a.slow", {})])
        await office.emit("a.quick")
        await office.fan_out()
        page = await office.get("/v1/events")
        assert [event["type"] for event in page["data"]] == ["a.quick"]
    await office.fan_out()
    page = await office.get(f"/v1/events?after={page['next']}")
    assert [event["type"] for event in page["data"]] == ["a.slow"]


async def test_workers_that_fan_out_at_once_leave_no_gap_and_no_double(
    office: Office, open_office: OpenOffice
) -> None:
    other = await open_office("another shop")
    for number in range(40):
        await office.emit("a.b", {"number": number})
        await other.emit("a.b", {"number": number})

    async def work() -> None:
        while await fan_out(office.service.database, limit=3):
            pass

    await asyncio.gather(*(work() for _ in range(4)))
    for one in (office, other):
        page = await one.get("/v1/events")
        assert [event["position"] for event in page["data"]] == list(range(1, 41))
        assert sorted(event["data"]["number"] for event in page["data"]) == list(range(40))


async def test_types_are_chosen_and_a_rare_one_reads_no_whole_history(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "WINDOW", 5)
    for number in range(12):
        await office.emit("rare.one" if number == 11 else "common.one", {"number": number})
    await office.fan_out()
    page = await office.get("/v1/events?types=rare.*")
    assert page == {"data": [], "next": 5, "head": 12, "epoch": office.service.epoch}
    page = await office.get(f"/v1/events?types=rare.*&after={page['next']}")
    assert page == {"data": [], "next": 10, "head": 12, "epoch": office.service.epoch}
    page = await office.get(f"/v1/events?types=rare.*,nothing&after={page['next']}")
    assert [event["data"]["number"] for event in page["data"]] == [11]
    assert page["next"] == 12


async def test_a_call_may_wait_for_what_comes(office: Office) -> None:
    waiting = asyncio.create_task(office.get("/v1/events?wait=30"))
    await office.emit("a.late")
    await office.fan_out()
    page = await waiting
    assert [event["type"] for event in page["data"]] == ["a.late"]
    assert (await office.get("/v1/events?after=1&wait=0"))["data"] == []


@pytest.mark.parametrize(
    "query",
    ["wait=31", "wait=-1",
     "after=-1", "after=x", "after=9223372036854775808", "limit=0", "limit=501", "types=", "types=a,,b", "types=a%20b",
     "types=" + ",".join(["a"] * 21), "types=*.a", "x=1"],
)  # fmt: skip
async def test_a_query_that_makes_no_sense(office: Office, query: str) -> None:
    status, problem = await office.call("GET", f"/v1/events?{query}")
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


async def test_nobody_reads_the_events_of_others(office: Office, open_office: OpenOffice) -> None:
    await office.emit()
    await office.fan_out()
    other = await open_office("another shop")
    epoch = office.service.epoch
    assert await other.get("/v1/events") == {"data": [], "next": 0, "head": 0, "epoch": epoch}
    assert await office.get("/v1/events?after=9223372036854775807") == {
        "data": [],
        "next": 2**63 - 1,
        "head": 1,
        "epoch": epoch,
    }
