"""Several events in one message: what it looks like, what bounds it, and that it stays the same whatever happens."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest

from core import ids
from core.database import Database
from core.outbox import batching
from core.outbox.batching import MAX_BATCH_BYTES
from core.outbox.breakers import LEAST_RESULTS, Breakers
from core.outbox.recording import take_over_deliveries
from core.outbox.schedule import Schedule
from core.work.leases import Worker
from ops.receiving import Delivery
from tests.core.outbox.office import Office, says
from tests.jobs.merchant import Receiver

REFUSED = "http://127.0.0.1:1/closed"


def numbers(delivery: Delivery) -> list[int]:
    return [event["data"]["number"] for event in delivery.event["data"]]


async def emit(office: Office, count: int, **more: Any) -> None:
    for number in range(count):
        await office.emit("a.b", {"number": number, **more})


async def states(office: Office) -> dict[str, int]:
    rows = await office.sql("SELECT state, count(*) AS number FROM webhook_deliveries GROUP BY state")
    return {row["state"]: row["number"] for row in rows}


async def test_what_is_due_together_goes_together(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, batch_size=10, signature="v1a")
    assert endpoint["batch_size"] == 10
    await emit(office, 25)
    await office.deliver()
    assert sorted(numbers(sent) for sent in receiver.deliveries) == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 25)),
    ]
    listed = {row["event"]: row for row in await office.deliveries("?limit=100")}
    for sent in receiver.deliveries:
        receiver.verify(sent)
        assert sent.event["type"] == sent.headers["X-Webhook-Event"] == "batch"
        assert sent.headers["webhook-id"].startswith("batch_")
        for event in sent.event["data"]:
            assert set(event) == {"id", "type", "data"}
            shown = listed[event["id"]]
            assert shown["batch"] == sent.headers["X-Delivery-ID"]
            assert (shown["state"], shown["attempts"], shown["last_status"]) == ("delivered", 1, 200)
    assert len({sent.headers["webhook-id"] for sent in receiver.deliveries}) == 3
    # Each event finds the attempts of its batch.
    for row in listed.values():
        found = await office.get(f"/v1/webhook-deliveries/{row['id']}")
        assert [attempt["status"] for attempt in found["attempts"]] == [200]


async def test_one_event_is_a_batch_of_one(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, batch_size=100)
    event_id = await office.emit("a.b", {"number": 7})
    await office.deliver()
    (sent,) = receiver.deliveries
    receiver.verify(sent)
    assert sent.body == b'{"type":"batch","data":[{"id":"msg_%s","type":"a.b","data":{"number":7}}]}' % (
        event_id.hex.encode()
    )


async def test_a_batch_is_tried_again_with_the_same_bytes_whatever_comes_meanwhile(
    office: Office, receiver: Receiver
) -> None:
    endpoint = await office.listen(receiver, batch_size=5)
    receiver.answers += [says(500, "not now"), says(302)]
    await emit(office, 3)
    await office.fan_out()
    sender = office.sender()
    try:
        assert await sender.step() == 3
        await asyncio.wait(sender._sending)
        assert await states(office) == {"pending": 1, "waiting": 2}
        for row in await office.deliveries():
            assert (row["attempts"], row["last_status"]) == (1, 500)
            assert row["last_error"] == "answered 500: not now"
    finally:
        await office.close(sender)
    # More events, and another size: the batch is what it was.
    await office.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"batch_size": 2})
    await emit(office, 3)
    await office.deliver()
    batch = [sent for sent in receiver.deliveries if len(numbers(sent)) == 3]
    assert len(batch) >= 2
    assert len({sent.body for sent in batch}) == 1
    assert len({sent.headers["webhook-id"] for sent in batch}) == 1
    assert len({sent.headers["X-Delivery-ID"] for sent in batch}) == 1
    for sent in receiver.deliveries:
        receiver.verify(sent)
    assert await states(office) == {"delivered": 6}


async def test_a_batch_is_given_up_and_sent_again_as_a_whole(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, batch_size=5)
    receiver.answers += [says(500)] * 3
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    await emit(office, 4)
    await office.deliver()
    assert await states(office) == {"failed": 4}
    assert {row["attempts"] for row in await office.deliveries()} == {3}
    assert (await office.get(f"/v1/webhook-endpoints/{endpoint['id']}"))["failed_deliveries"] == 1
    # Any of them brings all of them back.
    follower = next(row for row in await office.deliveries() if row["batch"] != row["id"])
    await office.post(f"/v1/webhook-deliveries/{follower['id']}/resend")
    assert await states(office) == {"pending": 1, "waiting": 3}
    receiver.answers += [says(500)] * 3
    await office.deliver()
    assert await states(office) == {"failed": 4}
    recovered = await office.post(f"/v1/webhook-endpoints/{endpoint['id']}/recover", {"since": since})
    assert recovered == {"replayed": 4, "next": None}
    await office.deliver()
    assert await states(office) == {"delivered": 4}
    assert len({sent.body for sent in receiver.deliveries}) == 1


async def test_a_batch_is_bounded_by_bytes(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, batch_size=100)
    await emit(office, 40, filling="x" * 19_000)
    await office.deliver()
    # Several are under way at once, so that they arrive in any order.
    assert sorted(len(numbers(sent)) for sent in receiver.deliveries) == [1, 13, 13, 13]
    assert all(len(sent.body) <= MAX_BATCH_BYTES for sent in receiver.deliveries)
    assert sorted(chain.from_iterable(map(numbers, receiver.deliveries))) == list(range(40))


async def test_a_killed_workers_batch_is_taken_over_as_it_was(office: Office, receiver: Receiver) -> None:
    await office.listen(receiver, batch_size=5)
    await emit(office, 3)
    await office.fan_out()
    sender = office.sender()
    receiver.answers.append(says(500))
    await sender.step()
    await asyncio.wait(sender._sending)
    await office.close(sender)
    lease = (
        "UPDATE webhook_deliveries SET state = 'leased', attempts = $2, lease_worker = $1, lease_token = $1,"
        " lease_until = now() + interval '1 h' WHERE state = 'pending'"
    )
    await office.sql(lease, Worker().id, 2)
    assert await take_over_deliveries(office.service.database, office.schedule) == 1
    assert await states(office) == {"pending": 1, "waiting": 2}
    await office.deliver()
    first, second = receiver.deliveries
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    await office.sql(
        "UPDATE webhook_deliveries SET state = 'waiting', finished_at = NULL WHERE batch_id <> id"
    )
    await office.sql(
        "UPDATE webhook_deliveries SET state = 'pending', finished_at = NULL WHERE batch_id = id"
    )
    await office.sql(lease, Worker().id, 3)
    assert await take_over_deliveries(office.service.database, office.schedule) == 1
    assert await states(office) == {"failed": 3}, "it had no try left"


async def test_a_worker_that_stood_still_makes_no_batch_of_what_others_have(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its claim and the batch it lost one delivery to another worker; nothing of it counts."""
    await office.listen(receiver, batch_size=5)
    await emit(office, 3)
    await office.fan_out()
    form = batching._form

    async def stand_still(database: Database, *rest: Any) -> None:
        await office.sql(
            "UPDATE webhook_deliveries SET lease_token = $1"
            " WHERE id = (SELECT id FROM webhook_deliveries ORDER BY id LIMIT 1)",
            ids.new_uuid(),
        )
        await form(database, *rest)

    monkeypatch.setattr(batching, "_form", stand_still)
    sender = office.sender()
    try:
        assert await sender.step() == 3
        assert not sender._sending
        rows = await office.sql("SELECT state, batch_id FROM webhook_deliveries")
        assert {(row["state"], row["batch_id"]) for row in rows} == {("leased", None)}
        await office.sql("UPDATE webhook_deliveries SET lease_until = now() - interval '1 s'")
        assert await take_over_deliveries(office.service.database, office.schedule) == 3
    finally:
        await office.close(sender)
    monkeypatch.undo()
    await office.deliver()
    # The other worker may have sent them, nobody knows: so these go alone.
    assert [sent.event["type"] for sent in receiver.deliveries] == ["a.b"] * 3


async def test_what_was_tried_alone_stays_alone(office: Office, receiver: Receiver) -> None:
    office.schedule = Schedule(0.0, 1.0, max_attempts=5)
    endpoint = await office.listen(receiver)
    receiver.answers.append(says(500))
    await emit(office, 1)
    await office.fan_out()
    sender = office.sender()
    await sender.step()
    await asyncio.wait(sender._sending)
    await office.close(sender)
    await office.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"batch_size": 5})
    await office.deliver()
    first, second = receiver.deliveries
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


async def test_the_batches_of_an_endpoint_that_is_off_are_given_up_and_recovered(
    office: Office, receiver: Receiver
) -> None:
    endpoint = await office.listen(receiver, batch_size=2)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    receiver.answers += [says(500)] * 3
    await emit(office, 6)
    await office.fan_out()
    sender = office.sender()
    while len(receiver.deliveries) < 3:
        await sender.step()
        if sender._sending:
            await asyncio.wait(sender._sending)
    await office.close(sender)
    await office.call("PATCH", path, {"enabled": False})
    await office.deliver()
    assert await states(office) == {"failed": 6}
    assert {row["last_error"] for row in await office.deliveries()} == {"endpoint_disabled"}
    await office.call("PATCH", path, {"enabled": True})
    assert (await office.post(f"{path}/recover", {"since": since}))["replayed"] == 6
    receiver.deliveries.clear()
    await office.deliver()
    assert sorted(chain.from_iterable(map(numbers, receiver.deliveries))) == list(range(6))


async def test_batches_that_are_due_again_take_no_more_slots_than_others(
    office: Office, receiver: Receiver
) -> None:
    """Forty of them wait for a receiver that is not known to be swift: it gets two at a time."""
    await office.listen(receiver, batch_size=50)
    await emit(office, 40)
    await office.fan_out()
    await office.sql("UPDATE webhook_deliveries SET batch_id = id, attempts = 1")
    go_on = asyncio.Event()

    async def hang(request: Any) -> Any:
        await go_on.wait()
        return await says(200)(request)

    receiver.answers += [hang] * 2
    sender = office.sender()
    try:
        while await sender.step():
            pass
        assert len(sender._sending) == 2
    finally:
        go_on.set()
        await office.close(sender)
    await office.deliver()
    assert await states(office) == {"delivered": 40}


async def test_a_receiver_that_was_left_alone_is_tried_with_one(office: Office, receiver: Receiver) -> None:
    now = 0.0
    office.breakers = Breakers(30, clock=lambda: now)
    office.schedule = Schedule(0.0, 1.0, max_attempts=100)
    await office.listen(receiver, batch_size=3)
    receiver.answers += [says(500)] * (LEAST_RESULTS + 10)
    await emit(office, 30)
    await office.deliver()
    sent = len(receiver.deliveries)
    now = 31.0
    await office.deliver()
    assert len(receiver.deliveries) == sent + 1
    receiver.answers.clear()
    now = 31.0 + 61.0
    await office.deliver()
    assert await states(office) == {"delivered": 30}


@pytest.mark.parametrize("size", [0, 101, -1, "5", 1.5])
async def test_a_size_that_makes_no_sense(office: Office, size: object) -> None:
    status, problem = await office.call("POST", "/v1/webhook-endpoints", {"url": REFUSED, "batch_size": size})
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


async def test_order_and_batches_exclude_each_other(office: Office) -> None:
    both = {"url": REFUSED, "batch_size": 2, "ordered": True}
    status, problem = await office.call("POST", "/v1/webhook-endpoints", both)
    assert (status, problem["error"]["code"]) == (400, "invalid_request")
    endpoint = await office.endpoint(REFUSED, batch_size=2)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    status, problem = await office.call("PATCH", path, {"ordered": True})
    assert (status, problem["error"]["code"]) == (400, "invalid_request")
    status, shown = await office.call("PATCH", path, {"ordered": True, "batch_size": 1})
    assert (status, shown["ordered"], shown["batch_size"]) == (200, True, 1)
