"""The batches of one worker beside each other: what they wait for, what they know, and what they leave behind."""

import asyncio
import uuid
from typing import Any

import pytest

from core.database import Query
from core.errors import Unavailable
from core.inbox import processing
from core.inbox.processing import Processor, take_over_inbox_events
from tests.jobs.merchant import Thread, payment
from tests.jobs.test_processing import SQL, as_owner, processor


class Gate:
    """A gate before the transaction of each batch. It is closed at first."""

    def __init__(self, worker: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
        self._apply = worker._applier.apply
        self._open = asyncio.Event()
        monkeypatch.setattr(worker._applier, "apply", self._wait)

    async def _wait(self, *arguments: Any) -> None:
        await self._open.wait()
        await self._apply(*arguments)

    def open(self) -> None:
        self._open.set()


async def test_a_batch_that_is_stuck_holds_up_one_look(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that has waited for it may find nothing; the next one does not wait for it again."""
    worker = processor(thread)
    gate = Gate(worker, monkeypatch)
    await thread.send(payment("pi_1", None))
    assert await worker.start() == 1
    monkeypatch.setattr(processing, "ALONE_SECONDS", 0.001)
    assert await worker.start() == 0
    monkeypatch.setattr(processing, "ALONE_SECONDS", 3600.0)
    await thread.send(payment("pi_2", None))
    async with asyncio.timeout(10):
        assert await worker.start() == 1
    gate.open()
    await worker.drain(10)
    assert [(await thread.inbox(f"evt_pi_{number}"))["state"] for number in (1, 2)] == ["done"] * 2


async def test_events_that_go_alone_do_not_wait_for_each_other(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are due already, so nothing is gathered meanwhile; what came after them would wait for all of them."""
    monkeypatch.setattr(processing, "ALONE_SECONDS", 3600.0)
    database = thread.service.database
    for number in range(3):
        await thread.send(payment(f"pi_{number}", None))
    await database.fetch(SQL.claim_inbox_events, 10, uuid.uuid4(), uuid.uuid4(), 60.0, None)
    assert await take_over_inbox_events(database) == 3
    worker = processor(thread)
    gate = Gate(worker, monkeypatch)
    async with asyncio.timeout(10):
        assert [await worker.start() for _ in range(3)] == [1, 1, 1]
    gate.open()
    await worker.drain(10)
    assert [(await thread.inbox(f"evt_pi_{number}"))["state"] for number in range(3)] == ["done"] * 3


async def test_an_owner_whom_another_batch_lets_the_worker_forget_is_still_known_to_this_one(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one batch asks for an owner, another one fills the memory, and the first ones are forgotten."""
    monkeypatch.setattr(processing, "REMEMBERED", 1)
    monkeypatch.setattr(processing, "ALONE_SECONDS", 0.0)
    for name in ("one", "two", "three"):
        await thread.open_account(f"shop:{name}")
    worker = processor(thread, base_seconds=100)
    await thread.send(payment("pi_0", "shop:one"))
    assert await worker.step() == 1
    asked, go_on = asyncio.Event(), asyncio.Event()
    fetch = type(worker._database).fetch

    async def held(database: Any, statement: Query, *arguments: Any) -> Any:
        if statement.name == "account_owners" and arguments == (["shop:two"],):
            asked.set()
            await go_on.wait()
        return await fetch(database, statement, *arguments)

    monkeypatch.setattr(type(worker._database), "fetch", held)
    await thread.send(payment("pi_1", "shop:one"))
    await thread.send(payment("pi_2", "shop:two"))
    assert await worker.start() == 2
    await asked.wait()
    await thread.send(payment("pi_3", "shop:three"))
    assert await worker.step() == 1
    go_on.set()
    await worker.drain(10)
    assert [await thread.balance(f"shop:{name}") for name in ("one", "two", "three")] == [3000, 1500, 1500]


async def test_what_was_given_back_goes_before_what_came_after_it(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that waited before its claim is due from before the last look; the next look goes back to it."""
    worker = processor(thread)
    await thread.send(payment("pi_1", None, event_id="evt_first"))
    await as_owner(thread, "UPDATE inbox_events SET due_at = now() - interval '1 min'")
    with monkeypatch.context() as away:

        async def fail(*_arguments: Any) -> None:
            raise Unavailable

        away.setattr(worker._applier, "apply", fail)
        assert await worker.step() == 1
    await thread.send(payment("pi_1", None, event_id="evt_second"))
    assert await worker.step() == 2
    rows = await thread.service.database.connections.pool.fetch("SELECT state, attempts FROM inbox_events")
    assert [tuple(row) for row in rows] == [("done", 1)] * 2
