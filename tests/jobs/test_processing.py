"""How events are applied: by one worker at a time, one event of an object at a time, and what failures leave."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import asyncpg
import pytest

from core.database import queries
from core.inbox import processing, rules
from core.inbox.processing import Processor, Retries, take_over_inbox_events
from core.inbox.rules import Admission, Decision, Owners, Post
from core.ledger.items import Effects, Leg, Posting
from core.outbox.events import new_event
from core.settings import load_settings
from core.work import wakeup
from core.work.leases import Worker
from tests.jobs.merchant import Thread, payment

SQL = queries("core.inbox.processing")
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


async def as_owner(thread: Thread, statement: str) -> None:
    connection = await asyncpg.connect(str(thread.service.settings.database_url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def stalled(worker: Processor, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the worker apply nothing until the event is set."""
    go_on = asyncio.Event()
    apply = worker._applier.apply

    async def stall(*arguments: Any) -> None:
        await go_on.wait()
        await apply(*arguments)

    monkeypatch.setattr(worker._applier, "apply", stall)
    return go_on


class Telling(NamedTuple):
    """An event whose effect has no key of its own: only the claim keeps it from being had twice."""

    fields: Mapping[str, Any]
    reference: str | None = None

    @property
    def accounts(self) -> tuple[str, ...]:
        return ()

    def decide(self, _owners: Owners) -> Decision:
        told = new_event(1, "webhook.test", {"of": self.fields["id"]})
        return Post(
            Posting(
                id=uuid.uuid4(),
                principal_id=0,
                legs=(Leg("shop:main", -1), Leg("shop:other", 1)),
                reference=self.reference,
                effects=Effects(told=(told,)),
            )
        )


@pytest.fixture
async def telling(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every paid intent be told, under no key."""
    monkeypatch.setattr(rules, "RULES", {TYPE: Telling})
    await thread.open_account("shop:main")
    await thread.open_account("shop:other")
    await as_owner(thread, "UPDATE accounts SET floor = NULL")


UNGUARDED = """
CREATE OR REPLACE FUNCTION inbox_hold(claim uuid, ends boolean) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE OR REPLACE FUNCTION inbox_finish(
    claim uuid, ids uuid[], items integer[], reasons text[], ends boolean, outcomes smallint[]
) RETURNS integer LANGUAGE sql AS $$ SELECT 0 $$;
"""


@pytest.mark.usefixtures("telling")
@pytest.mark.parametrize(("claim", "effects"), [("ignored", 2), ("checked", 1)])
async def test_a_worker_whose_lease_ran_out_finishes_nothing(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, claim: str, effects: int
) -> None:
    """A worker stalls between its claim and its transaction; another takes over. Without the claim: two effects."""
    if claim == "ignored":
        await as_owner(thread, UNGUARDED)
    database = thread.service.database
    await thread.send(payment("pi_1", None))
    slow, fast = processor(thread), processor(thread)
    claimed, go_on = asyncio.Event(), asyncio.Event()
    apply = slow._applier.apply

    async def stall(*arguments: Any) -> None:
        claimed.set()
        await go_on.wait()
        await apply(*arguments)

    monkeypatch.setattr(slow._applier, "apply", stall)
    late = asyncio.create_task(slow.step())
    await claimed.wait()
    assert await take_over_inbox_events(database) == 1
    assert await fast.step() == 1
    go_on.set()
    assert await late == 1
    assert await emitted(thread) == effects


@pytest.mark.parametrize("objects", ["forgotten", "named"])
async def test_two_events_of_one_object_are_never_in_two_hands(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, objects: str
) -> None:
    """A second worker leaves the object alone and takes another one. Without names it takes both."""
    if objects == "forgotten":
        await as_owner(
            thread,
            "CREATE OR REPLACE FUNCTION inbox_object(provider text, object_id text) RETURNS text"
            " LANGUAGE sql AS 'SELECT gen_random_uuid()::text'",
        )
    first, second = processor(thread), processor(thread)
    claimed, go_on = asyncio.Event(), asyncio.Event()
    apply = first._applier.apply

    async def stall(*arguments: Any) -> None:
        claimed.set()
        await go_on.wait()
        await apply(*arguments)

    monkeypatch.setattr(first._applier, "apply", stall)
    await thread.send(payment("pi_1", None, event_id="evt_first"))
    held = asyncio.create_task(first.step())
    await claimed.wait()
    await thread.send(payment("pi_1", None, event_id="evt_second"))
    await thread.send(payment("pi_other", None, event_id="evt_other"))
    assert (await thread.inbox("evt_first"))["state"] == "leased"
    assert await second.step() == (1 if objects == "named" else 2)
    assert (await thread.inbox("evt_other"))["state"] == "done"
    go_on.set()
    assert await held == 1
    assert await second.step() == (1 if objects == "named" else 0)
    assert (await thread.inbox("evt_second"))["state"] == "done"


async def test_one_worker_has_several_batches_under_way_and_none_of_them_an_object_twice(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that is skipped for its object is called for as soon as the batch that has the object is done.

    Each batch takes long, so the next one does not wait for it.
    """
    woken: list[str] = []
    monkeypatch.setattr(processing, "ALONE_SECONDS", 0.0)
    worker = processor(thread)
    monkeypatch.setattr(worker, "_wake", woken.append)
    go_on = stalled(worker, monkeypatch)
    await thread.send(payment("pi_1", None, event_id="evt_1"))
    assert await worker.start() == 1
    await thread.send(payment("pi_2", None, event_id="evt_2"))
    assert await worker.start() == 1
    await thread.send(payment("pi_1", None, event_id="evt_3"))
    assert await worker.start() == 0
    assert woken == []
    go_on.set()
    await asyncio.gather(*worker._under_way)
    assert wakeup.INBOX in woken
    assert await worker.start() == 1
    await worker.drain(10)
    rows = await thread.service.database.connections.pool.fetch("SELECT outcome FROM inbox_events")
    assert [row["outcome"] for row in rows] == ["ignored"] * 3


async def test_what_arrives_while_a_small_batch_is_applied_is_one_batch(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "ALONE_SECONDS", 60.0)
    worker = processor(thread)
    go_on = stalled(worker, monkeypatch)
    await thread.send(payment("pi_1", None, event_id="evt_1"))
    assert await worker.start() == 1
    await thread.send(payment("pi_2", None, event_id="evt_2"))
    second = asyncio.create_task(worker.start())
    for number in (3, 4):
        await thread.send(payment(f"pi_{number}", None, event_id=f"evt_{number}"))
    go_on.set()
    assert await second == 3
    await worker.drain(10)


async def test_a_hot_object_in_another_hand_blocks_only_itself(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of its events are due than a claim takes; the events of others lie behind them, and are taken."""
    woken: list[str] = []
    monkeypatch.setattr(processing, "BATCH", 3)
    monkeypatch.setattr(processing, "SKIPPED_SECONDS", 0.0)
    await thread.send(payment("pi_hot", None, event_id="evt_hot"))
    database = thread.service.database
    await database.fetch(SQL.claim_inbox_events, 1, uuid.uuid4(), uuid.uuid4(), 60.0, None)
    for number in range(5):
        await thread.send(payment("pi_hot", None, event_id=f"evt_hot_{number}"))
    await thread.send(payment("pi_other", None, event_id="evt_other"))
    worker = processor(thread)
    monkeypatch.setattr(worker, "_wake", woken.append)
    assert await worker.step() == 1
    assert (await thread.inbox("evt_other"))["state"] == "done"
    woken.clear()
    assert await worker.step() == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert woken == [wakeup.INBOX]


@pytest.mark.usefixtures("telling")
async def test_one_poison_fails_alone(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of one posting is none that PostgreSQL takes, which no check foresees; the others do not notice."""

    def read(fields: Mapping[str, Any]) -> Telling:
        return Telling(fields, "\x00" if fields["id"] == "evt_pi_4" else None)

    monkeypatch.setattr(rules, "RULES", {TYPE: read})
    for number in range(7):
        await thread.send(payment(f"pi_{number}", None))
    await thread.send(payment("pi_idle", None) | {"type": "price.created"})
    assert await processor(thread, max_attempts=1).step() == 8
    rows = await thread.service.database.connections.pool.fetch(
        "SELECT event_id, outcome, attempts FROM inbox_events WHERE outcome <> 'applied' ORDER BY event_id"
    )
    assert [tuple(row) for row in rows] == [("evt_pi_4", "internal_error", 1), ("evt_pi_idle", "ignored", 1)]
    assert await emitted(thread) == 6
    assert await thread.service.database.connections.pool.fetchval("SELECT count(*) FROM inbox_claims") == 0


async def test_an_account_that_somebody_keeps_locked_holds_up_its_own_events_only(thread: Thread) -> None:
    for name in ("one", "two", "three"):
        await thread.open_account(f"shop:{name}")
        await thread.send(payment(f"pi_{name}", f"shop:{name}"))
    await thread.open_account("provider:stripe:clearing:USD")
    await as_owner(thread, "UPDATE accounts SET floor = NULL WHERE code LIKE 'provider:%'")
    pool = thread.service.database.connections.pool
    other = await asyncpg.connect(str(thread.service.settings.database_url))
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM accounts WHERE code = 'shop:two' FOR UPDATE")
            assert await processor(thread, base_seconds=100).step() == 3
    finally:
        await other.close()
    rows = await pool.fetch("SELECT event_id, state, last_error FROM inbox_events WHERE state <> 'done'")
    assert [(row["event_id"], row["state"], row["last_error"][:5]) for row in rows] == [
        ("evt_pi_two", "pending", "busy:")
    ]
    assert [await thread.balance(f"shop:{name}") for name in ("one", "two", "three")] == [1500, 0, 1500]


async def test_several_workers_apply_each_event_once(thread: Thread) -> None:
    """Four at once, over events with twins, of payments that share a clearing account which none has opened."""
    for number in range(5):
        await thread.open_account(f"shop:{number}")
    sent = [
        payment(f"pi_{number}", f"shop:{number % 5}", event_id=f"evt_{number}_{twin}")
        for twin in range(2)
        for number in range(60)
    ]
    await asyncio.gather(*(thread.send(event) for event in sent))

    async def drained() -> int:
        worker, done = processor(thread), 0
        while found := await worker.step():
            done += found
        return done

    assert sum(await asyncio.gather(*(drained() for _ in range(4)))) == 120
    await drain(thread)
    rows = await thread.service.database.connections.pool.fetch(
        "SELECT outcome, count(*) FROM inbox_events GROUP BY outcome ORDER BY outcome"
    )
    assert [tuple(row) for row in rows] == [("already_applied", 60), ("applied", 60)]
    assert [await thread.balance(f"shop:{number}") for number in range(5)] == [12 * 1500] * 5
    assert await emitted(thread) == 60


async def test_what_may_have_killed_a_worker_goes_alone_from_then_on(thread: Thread) -> None:
    """So the one that does kill its workers is given up alone, and its neighbours are not."""
    database = thread.service.database
    for number in range(3):
        await thread.send(payment(f"pi_{number}", None))

    async def claim() -> list[str]:
        rows = await database.fetch(SQL.claim_inbox_events, 10, uuid.uuid4(), uuid.uuid4(), 60.0, None)
        return [row["event_id"] for row in rows]

    assert await claim() == ["evt_pi_0", "evt_pi_1", "evt_pi_2"]
    assert await take_over_inbox_events(database) == 3
    await thread.send(payment("pi_3", None))
    assert sorted([*await claim(), *await claim(), *await claim()]) == ["evt_pi_0", "evt_pi_1", "evt_pi_2"]
    assert await claim() == ["evt_pi_3"]


async def test_a_refused_effect_may_be_had_once_its_cause_is_gone(thread: Thread) -> None:
    """A full account refuses under the key of the effect, which must not be the end of it."""
    await thread.open_account("shop:main")
    await as_owner(thread, "UPDATE accounts SET ceiling = 1000")
    await thread.send(payment("pi_1", "shop:main"))
    worker = processor(thread, base_seconds=0.0)
    assert await worker.step() == 1
    assert (await thread.inbox("evt_pi_1"))["last_error"].startswith("ceiling_exceeded: ")
    await as_owner(thread, "UPDATE accounts SET ceiling = NULL")
    assert await worker.step() == 1
    assert await thread.balance("shop:main") == 1500


async def test_every_failed_attempt_is_noted_with_its_worker(thread: Thread) -> None:
    await thread.send(payment("pi_1", "nobody's"))
    worker = processor(thread, max_attempts=3, base_seconds=0.01)
    pool = thread.service.database.connections.pool
    for _ in range(3):
        await pool.execute("UPDATE inbox_events SET due_at = now() - interval '0.1 s'")
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
        await pool.execute("UPDATE inbox_events SET due_at = now() - interval '0.1 s'")
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
