"""Hand-over when something fails or is scarce behind it: releases, records, commits, slots, late events."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core import ids, tasks
from core.errors import Unavailable
from core.outbox import fanout
from core.outbox.breakers import FIRST_SLOTS, MOST_SLOTS
from core.outbox.fanout import FanOut
from core.outbox.recording import Written
from core.outbox.sender import SLOTS, SLOTS_KEPT
from tests.core.outbox.hand import sent, states, worker
from tests.core.outbox.office import Office
from tests.jobs.merchant import Receiver

Eventually = Callable[..., Awaitable[Any]]


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
