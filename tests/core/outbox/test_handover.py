"""Deliveries that a fan-out hands over to the sender of its own process: which, how many, and what a crash leaves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from core import ids
from core.database import Row
from core.outbox.breakers import FIRST_SLOTS, MOST_SLOTS, SLOTS_OF_OTHER, Breakers
from core.outbox.fanout import FanOut, Room
from core.outbox.recording import take_over_deliveries
from core.outbox.sender import SLOTS, SLOTS_KEPT, SLOTS_OF_OTHERS, Sender
from core.work.due_window import DueWindow
from tests.core.outbox.hand import sent, states, worker
from tests.core.outbox.office import Office, OpenReceiver, says
from tests.jobs.merchant import Receiver

Work = Callable[[], Awaitable[int]]
Eventually = Callable[..., Awaitable[Any]]


async def test_what_there_is_room_for_needs_no_claim(office: Office, receiver: Receiver) -> None:
    """The first answer makes the receiver swift, and then it gets more at a time."""
    await office.listen(receiver, headers={"X-Shop": "7"})
    claims: list[bool] = []
    events: list[UUID] = []
    async with worker(office, claims) as (fan_out, sender):
        for number, handed in ((1, 1), (6, 6), (30, FIRST_SLOTS)):
            events = [await office.emit("a.b", {"number": place}) for place in range(number)]
            assert await fan_out.step() == number
            assert len(sender._sending) == handed
            assert claims == ([True] if number > handed else [])
            await sent(sender)
        assert len(receiver.deliveries) == 1 + 6 + FIRST_SLOTS
        assert sorted(await states(office)) == [("delivered", 1)] * 15 + [("pending", 0)] * 22
        assert await fan_out.step() == 0
    for delivery in receiver.deliveries:
        receiver.verify(delivery)
        assert delivery.headers["X-Shop"] == "7"
    first = [f"msg_{event.hex}" for event in events[:FIRST_SLOTS]]
    assert sorted(one.headers["webhook-id"] for one in receiver.deliveries[-FIRST_SLOTS:]) == sorted(first)
    for shown in await office.deliveries("?state=delivered&limit=100"):
        (attempt,) = (await office.get(f"/v1/webhook-deliveries/{shown['id']}"))["attempts"]
        assert (attempt["status"], attempt["excerpt"]) == (200, "thanks")
    positions = [event["position"] for event in (await office.get("/v1/events?limit=100"))["data"]]
    assert positions == list(range(1, 38))


async def test_ids_of_deliveries_are_in_the_order_of_their_events(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    before = ids.new_uuid()
    for _ in range(40):
        await office.emit()
    await office.fan_out()
    rows = await office.sql("SELECT id, event_id FROM webhook_deliveries ORDER BY id")
    assert [row["event_id"] for row in rows] == sorted(row["event_id"] for row in rows)
    assert {(row["id"].version, row["id"].variant) for row in rows} == {(7, UUID(int=1 << 63).variant)}
    assert rows[0]["id"].int >> 80 >= before.int >> 80
    assert rows[-1]["id"].int >> 80 <= (ids.new_uuid().int >> 80) + 1


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"ordered": True}, "pending"),
        ({"batch_size": 2}, "pending"),
        ({"event_types": ["nothing"]}, None),
        ({}, "failed"),
    ],
)
async def test_what_is_not_handed_over(
    office: Office, receiver: Receiver, more: dict[str, Any], state: str | None
) -> None:
    """Endpoints that want order or batches go by claims; one that is off gets nothing, and its delivery is kept."""
    endpoint = await office.listen(receiver, **more)
    await office.emit("a.b", object_id="o_1")
    if state == "failed":
        await office.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"enabled": False})
    claims: list[bool] = []
    async with worker(office, claims) as (fan_out, sender):
        assert await fan_out.step() == 1
        assert not sender._sending
    assert await states(office) == ([] if state is None else [(state, 0)])
    assert bool(claims) == (state == "pending")


async def test_nothing_overtakes_what_waits_or_is_left_alone(office: Office, receiver: Receiver) -> None:
    office.breakers = Breakers(30)
    endpoint = await office.listen(receiver)
    async with worker(office) as (fan_out, sender):
        await office.emit()
        await office.fan_out()
        await sender._backlog.look()
        await office.emit()
        assert (await fan_out.step(), len(sender._sending)) == (1, 0)
        assert await sender.step() == 2
        await sent(sender)
        for _ in range(20):
            office.breakers.note(UUID(endpoint["id"]), good=False, seconds=0.1)
        await office.emit()
        assert (await fan_out.step(), len(sender._sending)) == (1, 0)
    assert await states(office) == [("delivered", 1)] * 2 + [("pending", 0)]


async def test_receivers_that_hang_get_two_each_and_half_of_all(
    office: Office, open_receiver: OpenReceiver
) -> None:
    go_on = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    hanging = await open_receiver()
    hanging.answers += [hang] * 400
    for number in range(60):
        await office.endpoint(f"{hanging.url}?{number}")
    async with worker(office) as (fan_out, sender):
        try:
            for _ in range(4):
                await office.emit()
                await fan_out.step()
            assert len(sender._sending) == SLOTS_OF_OTHERS
            assert max(sender._of_endpoint.values()) == SLOTS_OF_OTHER
        finally:
            go_on.set()


async def test_receivers_that_kept_up_and_hang_all_at_once_leave_slots(
    office: Office, receiver: Receiver, open_receiver: OpenReceiver
) -> None:
    go_on = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    hanging = await open_receiver()
    hanging.answers += [hang] * 400
    for number in range(4):
        made = await office.endpoint(f"{hanging.url}?{number}", event_types=["slow.*"])
        for _ in range(MOST_SLOTS):
            office.breakers.note(UUID(made["id"]), good=True, seconds=0.01, full=True)
    await office.listen(receiver, event_types=["live.*"])
    async with worker(office) as (fan_out, sender):
        try:
            for _ in range(60):
                await office.emit("slow.one")
            await fan_out.step()
            while await sender.step():
                pass
            under_way = len(sender._sending)
            assert SLOTS - SLOTS_KEPT <= under_way < SLOTS
            await office.emit("live.one")
            await fan_out.step()
            assert len(sender._sending) == under_way + 1
            while not receiver.deliveries:
                await asyncio.wait(sender._sending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            go_on.set()


class Killed:
    """A worker that dies between the commit of a fan-out and the requests."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def offer(self, most: int | None = None) -> Room:
        return self._sender.offer()

    def take(self, room: Room, rows: Sequence[Row]) -> None:
        self._sender.take(room, ())

    def give_back(self, token: UUID) -> None:
        """Say nothing, being dead."""


async def test_a_worker_that_dies_before_the_request_loses_nothing(
    office: Office, receiver: Receiver
) -> None:
    await office.listen(receiver)
    event = await office.emit()
    async with worker(office) as (_, sender):
        await FanOut(office.service.database, Killed(sender), on_due=lambda: None).step()
        assert await states(office) == [("leased", 1)]
        assert await take_over_deliveries(office.service.database, office.schedule) == 0, "it may be alive"
        await sender._worker.retire(office.service.database)
        assert await take_over_deliveries(office.service.database, office.schedule) == 1
        await office.deliver()
    (delivery,) = receiver.deliveries
    receiver.verify(delivery)
    assert delivery.headers["webhook-id"] == f"msg_{event.hex}"
    assert await states(office) == [("delivered", 2)]


async def test_a_slow_worker_does_not_record_what_was_taken_over(office: Office, receiver: Receiver) -> None:
    """Both send it, with the same ids and bytes; the record is that of the one which has the lease."""
    go_on = asyncio.Event()

    async def late(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response(status=500)

    receiver.answers.append(late)
    await office.listen(receiver)
    await office.emit()
    async with worker(office) as (fan_out, sender):
        await fan_out.step()
        await office.sql("UPDATE webhook_deliveries SET lease_until = now() - interval '1 s'")
        assert await take_over_deliveries(office.service.database, office.schedule) == 1
        await office.deliver()
        go_on.set()
        await sent(sender)
    assert await states(office) == [("delivered", 2)]
    assert len(receiver.deliveries) == 2
    for name in ("webhook-id", "X-Delivery-ID"):
        assert len({delivery.headers[name] for delivery in receiver.deliveries}) == 1


async def test_a_worker_that_stops_gives_back_what_it_has_not_sent(
    office: Office, receiver: Receiver
) -> None:
    await office.listen(receiver)
    await office.emit()
    async with worker(office) as (_, sender):
        await FanOut(office.service.database, Killed(sender), on_due=lambda: None).step()
        await sender.drain(5)
    assert await states(office) == [("pending", 0)]


async def test_workers_that_fan_out_at_once_send_everything_once(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver)
    async with worker(office) as (one, first), worker(office) as (other, second):
        for _ in range(10):
            for _ in range(6):
                await office.emit()
            await asyncio.gather(*(fan_out.step() for fan_out in (one, other, one, other)))
            await sent(first)
            await sent(second)
        while await first.step():
            await sent(first)
    assert len(receiver.deliveries) == 60
    assert len({delivery.headers["webhook-id"] for delivery in receiver.deliveries}) == 60
    positions = [event["position"] for event in (await office.get("/v1/events?limit=100"))["data"]]
    assert positions == list(range(1, 61))


async def test_an_event_that_was_committed_late_is_found(office: Office, receiver: Receiver) -> None:
    """Its id is of long before the last look, so only the look at everything finds it."""
    now = 1000.0
    await office.listen(receiver)
    async with worker(office) as (fan_out, sender):
        fan_out._due_window = DueWindow(clock=lambda: now)
        assert await fan_out.step() == 0
        await office.sql(
            "INSERT INTO outbox_events (id, principal_id, event_type, body) VALUES ($1, $2, 'a.b', '{}')",
            ids.first_uuid_at(datetime.now(UTC) - timedelta(hours=1)),
            office.principal_id,
        )
        assert await fan_out.step() == 0
        now += 5.0
        assert await fan_out.step() == 1
        await sent(sender)
    assert len(receiver.deliveries) == 1


async def test_more_events_than_a_step_takes_are_taken_in_their_order(office: Office) -> None:
    claims: list[bool] = []
    sender = office.sender()
    fan_out = FanOut(office.service.database, sender, on_due=lambda: claims.append(True), limit=3)
    for _ in range(8):
        await office.emit()
    assert [await fan_out.step() for _ in range(4)] == [3, 3, 2, 0]
    await office.close(sender)
    assert claims == []


def test_a_receiver_that_keeps_up_gets_more() -> None:
    breakers = Breakers(30)
    shop, other = UUID(int=1), UUID(int=2)
    assert breakers.slots_of(shop) == SLOTS_OF_OTHER
    breakers.note(shop, good=True, seconds=0.01)
    assert breakers.slots_of(shop) == FIRST_SLOTS
    breakers.note(shop, good=True, seconds=0.01)
    assert breakers.slots_of(shop) == FIRST_SLOTS, "it does not use all that it has"
    for _ in range(100):
        breakers.note(shop, good=True, seconds=0.01, full=True)
    assert breakers.slots_of(shop) == MOST_SLOTS
    for _ in range(5):
        breakers.note(shop, good=True, seconds=0.5, full=True)
    assert breakers.slots_of(shop) == MOST_SLOTS - 5
    breakers.note(other, good=True, seconds=0.01)
    assert breakers.latest_swift(9) == [other, shop]
    for good, seconds in ((True, 2.0), (False, 0.01)):
        breakers.note(shop, good=good, seconds=seconds, full=True)
        assert breakers.slots_of(shop) == SLOTS_OF_OTHER
        breakers.note(shop, good=True, seconds=0.01, full=True)
        assert breakers.slots_of(shop) >= FIRST_SLOTS


async def test_unwell_receivers_are_tried_again_by_claims(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(says(500))
    await office.listen(receiver)
    await office.emit()
    async with worker(office) as (fan_out, sender):
        await fan_out.step()
        await sent(sender)
        assert await states(office) == [("pending", 1)]
        assert await sender.step() == 1
        await sent(sender)
    assert await states(office) == [("delivered", 2)]
