"""One after the other: the events of an object at an endpoint that asks for order, whatever fails, dies or is late."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from core.outbox import deliveries as core_deliveries
from core.outbox.fanout import fan_out
from core.outbox.ordering import Stalled
from core.outbox.recording import take_over_deliveries
from core.outbox.schedule import Schedule
from core.settings import Settings
from core.work.leases import Worker
from ops.receiving import Delivery
from tests.core.outbox.office import Office, says
from tests.jobs.merchant import Receiver

Sent = list[tuple[str, int]]


def sent(receiver: Receiver) -> Sent:
    """Return the events that have arrived, as object and number."""
    return [_place(delivery) for delivery in receiver.deliveries]


def _place(delivery: Delivery) -> tuple[str, int]:
    data = delivery.event["data"]
    return data["object"], data["number"]


async def emit(office: Office, number: int, object_id: str = "pi_1") -> None:
    await office.emit("a.b", {"object": object_id, "number": number}, object_id=object_id)


async def states(office: Office) -> list[str]:
    rows = await office.sql("SELECT state FROM webhook_deliveries ORDER BY event_id")
    return [row["state"] for row in rows]


async def test_one_is_in_turn_and_the_others_wait(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, ordered=True)
    assert endpoint["ordered"] is True
    for number in range(4):
        await emit(office, number)
    await emit(office, 0, "pi_2")
    await office.emit("a.b", {"object": "none", "number": 0})
    await office.fan_out()
    assert await states(office) == ["pending", "waiting", "waiting", "waiting", "pending", "pending"]
    shown = await office.deliveries("?state=waiting")
    assert len(shown) == 3
    assert {row["next_attempt_at"] for row in shown} == {None}
    await office.deliver()
    assert [number for object_id, number in sent(receiver) if object_id == "pi_1"] == [0, 1, 2, 3]
    assert len(receiver.deliveries) == 6
    assert set(await states(office)) == {"delivered"}


async def test_one_that_is_tried_again_holds_back_those_after_it(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, ordered=True)
    receiver.answers += [says(500), says(503)]
    for number in range(3):
        await emit(office, number)
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [0, 0, 0, 1, 2]
    # While it waits for its next try, nothing goes.
    office.schedule = Schedule(3600.0, 1.0, max_attempts=5)
    receiver.answers.append(says(500))
    receiver.deliveries.clear()
    for number in range(3, 6):
        await emit(office, number)
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [3]
    assert (await states(office))[3:] == ["pending", "waiting", "waiting"]


async def test_one_that_is_given_up_lets_the_next_go(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, ordered=True)
    receiver.answers += [says(500)] * 3
    for number in range(2):
        await emit(office, number)
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [0, 0, 0, 1]
    assert await states(office) == ["failed", "delivered"]


async def test_what_is_sent_again_takes_its_turn(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, ordered=True)
    receiver.answers += [says(500)] * 3
    for number in range(2):
        await emit(office, number)
    await office.deliver()
    office.schedule = Schedule(3600.0, 1.0, max_attempts=5)
    receiver.answers.append(says(500))
    for number in range(2, 4):
        await emit(office, number)
    await office.deliver()
    assert await states(office) == ["failed", "delivered", "pending", "waiting"]
    rows = await office.sql("SELECT id FROM webhook_deliveries ORDER BY event_id")
    for row in rows[:2]:
        await office.post(f"/v1/webhook-deliveries/{row['id']}/resend")
    # The one in turn is still to be tried again; and to be sent again now does not take it out of its turn.
    assert await states(office) == ["waiting", "waiting", "pending", "waiting"]
    await office.post(f"/v1/webhook-deliveries/{rows[3]['id']}/resend")
    receiver.deliveries.clear()
    await office.post(f"/v1/webhook-deliveries/{rows[2]['id']}/resend")
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [2, 0, 1, 3]


async def test_a_recovery_goes_in_the_order_of_the_events(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_deliveries, "REPLAY_BATCH", 4)
    endpoint = await office.listen(receiver, ordered=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    await emit(office, 0)
    await emit(office, 1)
    await office.fan_out()
    await office.call("PATCH", path, {"enabled": False})
    for number in range(2, 12):
        await emit(office, number)
    await office.deliver()
    assert receiver.deliveries == []
    assert await states(office) == ["failed"] * 12, "what waited, too"
    await office.call("PATCH", path, {"enabled": True})
    assert await office.post(f"{path}/recover", {"since": since}) == {"replayed": 12, "next": None}
    await office.deliver()
    assert [number for _, number in sent(receiver)] == list(range(12))


async def test_two_fan_outs_at_once_leave_the_order_as_it_was(
    office: Office, receiver: Receiver, settings: Settings
) -> None:
    """The first event is in the hands of a fan-out that stands still; another one deals with the second."""
    await office.listen(receiver, ordered=True)
    await emit(office, 0)
    await emit(office, 1)
    slow = await asyncpg.connect(str(settings.database_url))
    try:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("SELECT 1 FROM outbox_events ORDER BY id LIMIT 1 FOR UPDATE")
        assert await fan_out(office.service.database) == 1
        await office.deliver()
        assert receiver.deliveries == []
        assert await states(office) == ["waiting"]
        await transaction.rollback()
    finally:
        await slow.close()
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [0, 1]


async def test_one_in_turn_at_a_time_is_what_the_database_holds(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, ordered=True)
    for number in range(2):
        await emit(office, number)
    await office.fan_out()
    with pytest.raises(asyncpg.UniqueViolationError):
        await office.sql("UPDATE webhook_deliveries SET state = 'pending'")


async def test_what_a_dead_worker_was_sending_is_still_in_turn(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, ordered=True)
    for number in range(2):
        await emit(office, number)
    await office.fan_out()
    lease = (
        "UPDATE webhook_deliveries SET state = 'leased', attempts = $2, lease_worker = $1, lease_token = $1,"
        " lease_until = now() + interval '1 h' WHERE state = 'pending'"
    )
    await office.sql(lease, Worker().id, 1)
    assert await take_over_deliveries(office.service.database, office.schedule) == 1
    assert await states(office) == ["pending", "waiting"]
    await office.sql(lease, Worker().id, 3)
    assert await take_over_deliveries(office.service.database, office.schedule) == 1
    assert await states(office) == ["failed", "pending"], "it had no try left"
    await office.deliver()
    assert [number for _, number in sent(receiver)] == [1]


async def test_what_a_worker_did_not_live_to_release_is_found(office: Office, receiver: Receiver) -> None:
    """The worker died between the commit of a fan-out, or of a resend, and the release."""
    await office.listen(receiver, ordered=True)
    for number in range(3):
        await emit(office, number)
        await emit(office, number, "pi_2")
    await office.fan_out()
    await office.sql("UPDATE webhook_deliveries SET state = 'waiting'")
    await office.deliver()
    assert receiver.deliveries == []
    stalled = Stalled(office.service.database)
    assert await stalled.step() == 2
    assert await stalled.step() == 0, "one of each object is in turn"
    await office.deliver()
    for object_id in ("pi_1", "pi_2"):
        assert [number for found, number in sent(receiver) if found == object_id] == [0, 1, 2]


async def test_to_switch_order_off_and_on_concerns_what_comes_then(
    office: Office, receiver: Receiver
) -> None:
    endpoint = await office.listen(receiver, ordered=True)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    for number in range(2):
        await emit(office, number)
    await office.fan_out()
    status, shown = await office.call("PATCH", path, {"ordered": False})
    assert (status, shown["ordered"]) == (200, False)
    await emit(office, 2)
    await office.fan_out()
    assert await states(office) == ["pending", "waiting", "pending"]
    status, shown = await office.call("PATCH", path, {"ordered": True})
    assert (status, shown["ordered"]) == (200, True)
    await office.deliver()
    assert sorted(number for _, number in sent(receiver)) == [0, 1, 2]


class Witness:
    """A receiver's answers, a third of which are errors, and what it saw of the order."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._random = random.Random(7)
        self._under_way: set[str] = set()
        self._tried: dict[str, int] = {}
        self.accepted: defaultdict[str, list[int]] = defaultdict(list)
        self.broken: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        object_id, number = _place(self._receiver.deliveries[-1])
        if object_id in self._under_way or number < self._tried.get(object_id, 0):
            self.broken.append(f"{object_id} {number}")
        self._under_way.add(object_id)
        self._tried[object_id] = number
        await asyncio.sleep(0)
        self._under_way.discard(object_id)
        if self._random.random() < 1 / 3:
            return web.Response(status=500)
        self.accepted[object_id].append(number)
        return web.Response()

    def count(self) -> int:
        return sum(len(numbers) for numbers in self.accepted.values())


async def test_order_holds_with_several_workers_and_a_receiver_that_fails(
    office: Office, receiver: Receiver, eventually: Any
) -> None:
    """Three workers send and two fan out while events come: what is accepted comes in order, and none is lost."""
    witness = Witness(receiver)
    receiver.answers += [witness.answer] * 10_000
    objects, count = [f"pi_{number}" for number in range(6)], 15
    office.schedule = Schedule(0.0, 1.0, max_attempts=100)
    await office.listen(receiver, ordered=True)
    database, stopping = office.service.database, asyncio.Event()

    async def repeat(step: Callable[[], Awaitable[object]]) -> None:
        while not stopping.is_set():
            await step()
            await asyncio.sleep(0)

    senders = [office.sender() for _ in range(3)]
    steps = [sender.step for sender in senders]
    steps += [
        partial(fan_out, database, limit=7),
        partial(fan_out, database, limit=7),
        Stalled(database).step,
    ]
    work = [asyncio.create_task(repeat(step)) for step in steps]
    try:
        for number in range(count):
            for object_id in objects:
                await emit(office, number, object_id)
        await eventually(lambda: witness.count() == count * len(objects), timeout=60)
    finally:
        stopping.set()
        await asyncio.gather(*work)
        for sender in senders:
            await office.close(sender)
    assert witness.broken == []
    assert all(witness.accepted[object_id] == list(range(count)) for object_id in objects)
    assert set(await states(office)) == {"delivered"}
