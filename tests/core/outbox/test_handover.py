"""Deliveries that a fan-out hands over to the sender of its own process: which, how many, and what a crash leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import web

from core import ids, tasks
from core.database import Row
from core.errors import Unavailable
from core.outbox import fanout
from core.outbox.breakers import FIRST_SLOTS, MOST_SLOTS, SLOTS_OF_OTHER, Breakers
from core.outbox.fanout import FanOut, Room
from core.outbox.recording import Written
from core.outbox.sender import SLOTS, SLOTS_KEPT, SLOTS_OF_OTHERS, Sender, take_over_deliveries
from core.work.due_window import DueWindow
from tests.core.outbox.office import Office, OpenReceiver, says
from tests.jobs.merchant import Receiver

Work = Callable[[], Awaitable[int]]
Eventually = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def worker(office: Office, due: list[bool] | None = None) -> AsyncIterator[tuple[FanOut, Sender]]:
    """Yield the fan-out and the sender of one worker, whose heart beats once."""
    sender = office.sender()
    await sender._worker.beat(office.service.database)
    claims: list[bool] = [] if due is None else due
    try:
        yield FanOut(office.service.database, sender, on_due=lambda: claims.append(True)), sender
    finally:
        await office.close(sender)


async def sent(sender: Sender) -> None:
    while sender._sending:
        await asyncio.wait(sender._sending)


async def states(office: Office) -> list[tuple[str, int]]:
    rows = await office.sql("SELECT state, attempts FROM webhook_deliveries ORDER BY event_id, endpoint_id")
    return [tuple(row) for row in rows]


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

    def offer(self) -> Room:
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


async def test_receivers_that_share_all_slots_wait_for_no_poll(
    office: Office, receiver: Receiver, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests are answered before any is recorded: the records that free the slots call for the next claim."""
    endpoints = [UUID((await office.listen(receiver))["id"]) for _ in range(2)]
    for number in range(150):
        await office.emit("a.b", {"number": number})
    async with worker(office) as (fan_out, sender):
        due, recorded = asyncio.Event(), asyncio.Event()
        fan_out._on_due = sender._on_free = due.set
        for endpoint_id in endpoints:
            sender._breakers._swift[endpoint_id] = MOST_SLOTS
        add = sender._records.add

        async def add_late(written: Written, *, until: float) -> bool:
            await recorded.wait()
            return await add(written, until=until)

        async def deliver() -> None:
            while True:
                if not await sender.step():
                    await due.wait()
                    due.clear()

        monkeypatch.setattr(sender._records, "add", add_late)
        while await fan_out.step():
            pass
        delivering = asyncio.create_task(deliver())
        await eventually(lambda: len(sender._sending) >= SLOTS - SLOTS_KEPT and not sender._of_endpoint)
        recorded.set()
        try:
            await eventually(lambda: len(receiver.deliveries) == 300)
        finally:
            await tasks.end(delivering)


async def test_a_release_that_fails_holds_up_no_delivery_that_was_handed_over(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> int:
        raise Unavailable("locked", code="busy")

    await office.listen(receiver)
    await office.listen(receiver, ordered=True)
    await office.emit(object_id="order_1")
    monkeypatch.setattr(fanout, "release", busy)
    async with worker(office) as (fan_out, sender):
        with pytest.raises(Unavailable):
            await fan_out.step()
        await sent(sender)
        assert sorted(await states(office)) == [("delivered", 1), ("waiting", 0)]


async def test_a_fan_out_whose_fate_is_not_known_leaves_no_lease(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks behind the commit: the deliveries are given back, and cost no attempt."""
    real = fanout._fan_out

    async def broken(*arguments: Any) -> Any:
        await real(*arguments)
        raise Unavailable

    await office.listen(receiver)
    await office.emit()
    async with worker(office) as (fan_out, sender):
        monkeypatch.setattr(fanout, "_fan_out", broken)
        with pytest.raises(Unavailable):
            await fan_out.step()
        assert await states(office) == [("leased", 1)]
        await sender.step()
        await sent(sender)
        assert await states(office) == [("delivered", 1)]
    assert len(receiver.deliveries) == 1


async def test_a_record_that_fails_is_written_again(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver has answered, and must not get the delivery again because the server was away for a moment."""
    await office.listen(receiver)
    await office.emit()
    async with worker(office) as (fan_out, sender):
        write, tries = sender._records._plain._send, []

        async def away_at_first(written: Sequence[Written]) -> Any:
            tries.append(len(written))
            if len(tries) == 1:
                raise Unavailable
            return await write(written)

        monkeypatch.setattr(sender._records._plain, "_send", away_at_first)
        await fan_out.step()
        await sent(sender)
    assert tries == [1, 1]
    assert await states(office) == [("delivered", 1)]


async def test_a_long_backlog_is_left_for_events_that_were_committed_late(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.listen(receiver)
    early = ids.new_uuid()
    for _ in range(6):
        await office.emit()
    async with worker(office) as (_, sender):
        fan_out = FanOut(office.service.database, sender, on_due=lambda: None, limit=2)
        assert await fan_out.step() == 2
        late = await office.emit()
        monkeypatch.setattr(fanout, "WHOLE_SECONDS", -1.0)
        owner = await asyncpg.connect(str(office.service.settings.database_url))
        await owner.execute("UPDATE outbox_events SET id = $2 WHERE id = $1", late, early)
        await owner.close()
        assert await fan_out.step() == 2
        rows = await office.sql(
            "SELECT fanned_out_at IS NOT NULL AS done FROM outbox_events WHERE id = $1", early
        )
        assert [row["done"] for row in rows] == [True]


async def test_the_first_requests_of_a_receiver_find_room_among_many(
    office: Office, receiver: Receiver
) -> None:
    """Others have all slots but the last: one that keeps up, and has nothing under way, gets its first eight."""
    endpoint_id = UUID((await office.listen(receiver))["id"])
    await office.emit()
    await office.fan_out()
    async with worker(office) as (_, sender):
        sender._breakers._swift[endpoint_id] = MOST_SLOTS
        await sender._backlog.look()
        others = {asyncio.create_task(asyncio.Event().wait()) for _ in range(SLOTS - SLOTS_KEPT + 10)}
        sender._sending |= others  # type: ignore[arg-type]
        try:
            assert sender._choose()[endpoint_id].most == FIRST_SLOTS
        finally:
            sender._sending -= others
            await tasks.end(*others)
