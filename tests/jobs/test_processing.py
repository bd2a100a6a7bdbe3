"""How events are applied: by one worker at a time, one event of an object at a time, and what failures leave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.database import Connection, queries
from core.inbox import processing
from core.inbox.processing import Processor, Retries, take_over_inbox_events
from core.inbox.rules import APPLIED, Admission, InboxEvent, Outcome
from core.ledger.ledger import Ledger
from core.outbox.events import new_event, write_events
from core.settings import load_settings
from core.work.leases import Worker
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
TYPE = ("stripe", "payment_intent.succeeded")


def processor(thread: Thread, **retries: Any) -> Processor:
    service = thread.service
    return Processor(
        service.database,
        service.ledger,
        Worker(),
        admission=Admission.of(service.settings),
        wake=lambda topic: None,
        retries=Retries(**retries),
    )


async def drain(thread: Thread) -> None:
    worker = processor(thread)
    while await worker.step():
        pass


async def emitted(thread: Thread) -> int:
    count: int = await thread.service.database.connections.pool.fetchval("SELECT count(*) FROM outbox_events")
    return count


async def tell(connection: Connection, _ledger: Ledger, event: InboxEvent) -> Outcome:
    """A rule whose effect has no key of its own: only the lease's token keeps it from being had twice."""
    told = new_event(1, "test.told", {"of": event.event_id}, object_id=event.object_id)
    await write_events(connection, [told])
    return APPLIED


@pytest.mark.parametrize(("token", "effects"), [("ignored", 2), ("checked", 1)])
async def test_a_worker_whose_lease_ran_out_finishes_nothing(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, token: str, effects: int
) -> None:
    """A worker stalls between its claim and its transaction; another takes over. Without the token: two effects."""
    monkeypatch.setattr(processing, "RULES", {TYPE: tell})
    if token == "ignored":
        inbox = queries("core.inbox.processing")
        finish = inbox.finish_inbox_event
        text = finish.text.replace("lease_token = $2", "$2::uuid IS NOT NULL")
        assert text != finish.text
        monkeypatch.setattr(inbox, "_found", inbox._found | {finish.name: finish._replace(text=text)})
    database = thread.service.database
    await thread.send(payment("pi_1", None))
    slow, fast = processor(thread), processor(thread)
    claimed, go_on = asyncio.Event(), asyncio.Event()
    apply_once = slow._apply_once

    async def stall(*arguments: Any) -> str:
        claimed.set()
        await go_on.wait()
        return await apply_once(*arguments)

    monkeypatch.setattr(slow, "_apply_once", stall)
    late = asyncio.create_task(slow.step())
    await claimed.wait()
    assert await take_over_inbox_events(database) == 1
    assert await fast.step() == 1
    go_on.set()
    assert await late == 1
    assert await emitted(thread) == effects


async def test_two_events_of_one_object_are_never_applied_at_once(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    inside: list[str] = []
    first_may_end = asyncio.Event()

    async def hold(_connection: Connection, _ledger: Ledger, event: InboxEvent) -> Outcome:
        inside.append(event.event_id)
        if event.event_id == "evt_first":
            await first_may_end.wait()
        return APPLIED

    monkeypatch.setattr(processing, "RULES", {TYPE: hold})
    pool = thread.service.database.connections.pool
    await thread.send(payment("pi_1", None, event_id="evt_first"))
    first = asyncio.create_task(processor(thread).step())
    await eventually(lambda: inside == ["evt_first"])
    await thread.send(payment("pi_1", None, event_id="evt_second"))
    await thread.send(payment("pi_other", None, event_id="evt_other"))
    second = asyncio.create_task(processor(thread).step())
    # The other object goes on; the second event waits in PostgreSQL for the first one's transaction.
    await eventually(lambda: "evt_other" in inside)
    await eventually(lambda: pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    assert "evt_second" not in inside
    first_may_end.set()
    assert [await first, await second] == [1, 2]
    assert inside[-1] == "evt_second"


async def test_every_failed_attempt_is_noted_with_its_worker(thread: Thread) -> None:
    await thread.send(payment("pi_1", "nobody's"))
    worker = processor(thread, max_attempts=3, base_seconds=0.01)
    pool = thread.service.database.connections.pool
    for _ in range(3):
        await pool.execute("UPDATE inbox_events SET due_at = now() - interval '1 s'")
        assert await worker.step() == 1
    assert await worker.step() == 0
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"], row["attempts"]) == ("dead", "account_not_found", 3)
    rows = await pool.fetch("SELECT attempt, code, worker FROM inbox_failures ORDER BY failed_at")
    assert [(row["attempt"], row["code"], row["worker"]) for row in rows] == [
        (attempt, "account_not_found", worker._worker.id) for attempt in (1, 2, 3)
    ]


async def test_the_wait_grows_and_is_drawn_below_its_bound(thread: Thread) -> None:
    pool = thread.service.database.connections.pool
    await thread.send(payment("pi_1", "nobody's"))
    worker = processor(thread, max_attempts=20, base_seconds=100, cap_seconds=1000)
    for attempt, ceiling in ((1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (6, 1000)):
        await pool.execute("UPDATE inbox_events SET due_at = now() - interval '1 s'")
        assert await worker.step() == 1
        row = await pool.fetchrow(
            "SELECT attempts, extract(EPOCH FROM due_at - f.failed_at)::float8 AS wait FROM inbox_events AS e"
            " JOIN inbox_failures AS f ON f.inbox_id = e.id AND f.attempt = e.attempts"
        )
        assert row is not None
        assert row["attempts"] == attempt
        assert -1 <= row["wait"] <= ceiling + 1


async def test_types_that_mean_nothing_to_us_are_done_visibly(thread: Thread) -> None:
    await thread.send(payment("pi_1", None) | {"type": "price.created"})
    await drain(thread)
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"], row["attempts"]) == ("done", "ignored", 1)


def test_retries_are_settings() -> None:
    settings = load_settings(
        env_file=None, env="test", inbox_max_attempts=3, inbox_retry_base_secs=2, inbox_retry_cap_secs=7
    )
    assert Retries.of(settings) == Retries(3, 2.0, 7.0)
    assert Retries.of(load_settings(env_file=None, env="test")) == Retries()
