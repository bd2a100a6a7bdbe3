"""One receiver never holds up another: the slots of each, and the deliveries that are not even looked at."""

import asyncio

from aiohttp import web

from core.outbox.breakers import LEAST_RESULTS, Breakers
from core.outbox.schedule import Schedule
from tests.core.outbox.office import Office, OpenReceiver, says
from tests.jobs.merchant import Receiver

REFUSED = "http://127.0.0.1:1/closed"


async def test_the_backlog_of_an_endpoint_that_is_off_is_not_claimed_piece_by_piece(office: Office) -> None:
    endpoint = await office.endpoint(REFUSED)
    await office.sql(
        "WITH made AS (INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at)"
        " SELECT gen_random_uuid(), $1, 'a.b', '{}', now() FROM generate_series(1, 2500) RETURNING id)"
        " INSERT INTO webhook_deliveries (id, event_id, endpoint_id) SELECT gen_random_uuid(), id, $2 FROM made",
        office.principal_id,
        endpoint["id"],
    )
    await office.call("PATCH", f"/v1/webhook-endpoints/{endpoint['id']}", {"enabled": False})
    sender = office.sender()
    claimed = 0
    try:
        while found := await sender.step():
            claimed += found
            await asyncio.wait(sender._sending)
    finally:
        await office.close(sender)
    assert claimed <= 8
    rows = await office.sql("SELECT DISTINCT state, last_error, attempts FROM webhook_deliveries")
    assert [tuple(row) for row in rows] == [("failed", "endpoint_disabled", 0)]


async def test_while_a_receiver_is_left_alone_nothing_is_burnt(office: Office, receiver: Receiver) -> None:
    now = 0.0
    office.breakers = Breakers(30, clock=lambda: now)
    office.schedule = Schedule(0.0, 1.0, max_attempts=100)
    await office.listen(receiver)
    receiver.answers += [says(500)] * (LEAST_RESULTS + 10)
    for number in range(50):
        await office.emit("a.b", {"number": number})
    await office.deliver()
    sent = len(receiver.deliveries)
    assert LEAST_RESULTS <= sent <= LEAST_RESULTS + 2
    await office.deliver()
    assert len(receiver.deliveries) == sent, "it is left alone"
    waiting = await office.sql("SELECT state, attempts FROM webhook_deliveries")
    assert {row["state"] for row in waiting} == {"pending"}
    assert sum(row["attempts"] for row in waiting) == sent
    now = 31.0
    await office.deliver()
    assert len(receiver.deliveries) == sent + 1, "one delivery tries it"
    receiver.answers.clear()
    now = 31.0 + 61.0
    await office.deliver()
    assert {delivery["state"] for delivery in await office.deliveries("?limit=100")} == {"delivered"}


async def test_a_backlog_of_ten_thousand_is_not_in_the_way(office: Office, receiver: Receiver) -> None:
    """The dead endpoint was made first, so its deliveries are found first."""
    dead = await office.endpoint(REFUSED, event_types=["dead.*"])
    await office.listen(receiver, event_types=["live.*"])
    await office.sql(
        "WITH made AS (INSERT INTO outbox_events (id, principal_id, event_type, body, fanned_out_at)"
        " SELECT gen_random_uuid(), $1, 'dead.a', '{}', now() FROM generate_series(1, 10000) RETURNING id)"
        " INSERT INTO webhook_deliveries (id, event_id, endpoint_id, due_at)"
        " SELECT gen_random_uuid(), id, $2, now() - interval '1 d' FROM made",
        office.principal_id,
        dead["id"],
    )
    await office.emit("live.a")
    await office.fan_out()
    sender = office.sender()
    try:
        claimed = await sender.step()
        assert claimed <= 10
        while not receiver.deliveries:
            await asyncio.wait(sender._sending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await office.close(sender)
    receiver.verify(receiver.deliveries[0])


async def test_receivers_that_hang_leave_slots_to_those_that_do_not(
    office: Office, receiver: Receiver, open_receiver: OpenReceiver
) -> None:
    go_on = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    hanging = await open_receiver()
    hanging.answers += [hang] * 400
    await office.listen(receiver, event_types=["live.*"])
    await office.emit("live.first")
    await office.deliver()
    for number in range(60):
        await office.endpoint(f"{hanging.url}?{number}", event_types=["slow.*"])
    for _ in range(4):
        await office.emit("slow.a")
    await office.fan_out()
    sender = office.sender()
    try:
        while await sender.step():
            pass
        # Two for each of them, and of all of them together a half of what there is.
        assert len(sender._sending) == 100
        for _ in range(3):
            await office.emit("live.next")
        await office.fan_out()
        assert await sender.step() == 3
        while len(receiver.deliveries) < 4:
            await asyncio.wait(sender._sending, return_when=asyncio.FIRST_COMPLETED)
        go_on.set()
    finally:
        go_on.set()
        await office.close(sender)
