"""What dies, hangs or goes away on the thread: nothing is lost, and nothing has its effect twice."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from aiohttp import web

from core import ids, metrics
from core.database import queries
from core.inbox.processing import Processor, Retries, take_over_inbox_events
from core.inbox.rules import Admission
from core.outbox.events import new_event, write_events
from core.outbox.recording import take_over_deliveries
from core.outbox.schedule import Schedule
from core.settings import Settings
from core.work.leases import Worker
from jobs import table
from ops.embedded import EmbeddedServers
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]
INBOX = queries("core.inbox.processing")


@pytest.fixture
async def worker_process(settings: Settings) -> AsyncIterator[Callable[[], subprocess.Popen[bytes]]]:
    """What starts a worker as a process of its own; those that still run are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {
        "ENV": "test",
        "DATABASE_URL": str(settings.database_url),
        "REDIS_URL": str(settings.redis_url),
        "OUTBOUND_ALLOW_HOSTS": "127.0.0.0/8",
        "WEBHOOK_MAX_ATTEMPTS": str(settings.webhook_max_attempts),
    }

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "ops.cli", "worker"], env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.drill
async def test_a_killed_workers_delivery_is_taken_over(
    thread: Thread,
    start_worker: StartWorker,
    worker_process: Callable[[], subprocess.Popen[bytes]],
    eventually: Eventually,
) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    thread.receiver.answers.append(hang)
    await thread.open_account("shop:main")
    await thread.subscribe()
    victim = worker_process()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: thread.receiver.deliveries, timeout=30)
    await _die(thread, victim)
    start_worker()
    await eventually(lambda: len(thread.receiver.deliveries) == 2, timeout=20)
    for delivery in thread.receiver.deliveries:
        thread.receiver.verify(delivery)
    first, second = thread.receiver.deliveries
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert await thread.balance("shop:main") == 1500


@pytest.mark.drill
async def test_order_outlives_a_killed_worker(
    thread: Thread,
    start_worker: StartWorker,
    worker_process: Callable[[], subprocess.Popen[bytes]],
    eventually: Eventually,
) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    thread.receiver.answers.append(hang)
    await thread.subscribe(ordered=True)
    database = thread.service.database
    principal_id = await database.connections.pool.fetchval("SELECT id FROM principals WHERE name = 'shop'")
    for number in range(4):
        async with database.transaction() as connection:
            event = new_event(principal_id, "a.b", {"number": number}, object_id="pi_1")
            await write_events(connection, [event])
    victim = worker_process()
    await eventually(lambda: thread.receiver.deliveries, timeout=30)
    await _die(thread, victim)
    start_worker()
    await eventually(lambda: len(thread.receiver.deliveries) == 5, timeout=20)
    assert [sent.event["data"]["number"] for sent in thread.receiver.deliveries] == [0, 0, 1, 2, 3]


@pytest.mark.drill
async def test_a_worker_process_ends_in_order(
    thread: Thread, worker_process: Callable[[], subprocess.Popen[bytes]], eventually: Eventually
) -> None:
    await thread.open_account("shop:main")
    process = worker_process()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: _outcome(thread, "evt_pi_1", "applied"), timeout=30)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0
    assert await thread.service.database.connections.pool.fetchval("SELECT count(*) FROM workers") == 0


async def test_what_a_dead_worker_claimed_is_free_and_what_a_living_one_holds_is_not(thread: Thread) -> None:
    database = thread.service.database
    dead, alive = Worker(), Worker()
    for worker in (dead, alive):
        await worker.beat(database)
    for intent, worker in (("pi_1", dead), ("pi_2", alive)):
        await thread.send(payment(intent, None))
        assert (
            len(await database.fetch(INBOX.claim_inbox_events, 10, worker.id, ids.new_uuid(), 60.0, None))
            == 1
        )
    assert await take_over_inbox_events(database) == 0
    await database.connections.pool.execute(
        "UPDATE workers SET seen_at = now() - interval '6 s' WHERE id = $1", dead.id
    )
    assert await take_over_inbox_events(database) == 1
    assert (await thread.inbox("evt_pi_1"))["state"] == "pending"
    assert (await thread.inbox("evt_pi_2"))["state"] == "leased"
    await alive.retire(database)
    assert await take_over_inbox_events(database) == 1


async def test_an_event_that_kills_its_workers_ends_as_a_dead_letter(thread: Thread) -> None:
    database = thread.service.database
    await thread.send(payment("pi_1", None))
    for _ in range(3):
        await database.fetch(INBOX.claim_inbox_events, 10, ids.new_uuid(), ids.new_uuid(), 60.0, None)
        assert await take_over_inbox_events(database, Retries(max_attempts=3)) == 1
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"], row["attempts"]) == ("dead", "worker_lost", 3)


async def test_a_slow_worker_cannot_finish_what_another_has_taken_over(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that the token is for: shown by a worker that stalls between its claim and its transaction."""
    database, ledger = thread.service.database, thread.service.ledger
    await thread.open_account("shop:main")
    await thread.send(payment("pi_1", "shop:main"))
    slow, fast = (
        Processor(
            database,
            ledger,
            Worker(),
            admission=Admission.of(thread.service.settings),
            wake=lambda topic: None,
        )
        for _ in range(2)
    )
    claimed, go_on = asyncio.Event(), asyncio.Event()
    apply = slow._applier.apply

    async def stall(*arguments: Any) -> None:
        claimed.set()
        await go_on.wait()
        await apply(*arguments)

    monkeypatch.setattr(slow._applier, "apply", stall)
    late = asyncio.create_task(slow.step())
    await claimed.wait()
    # Neither worker has ever beaten, so both count as dead.
    assert await take_over_inbox_events(database) == 1
    assert await fast.step() == 1
    go_on.set()
    assert await late == 1
    assert await thread.balance("shop:main") == 1500
    row = await thread.inbox("evt_pi_1")
    assert (row["state"], row["outcome"], row["attempts"]) == ("done", "applied", 2)
    assert await database.connections.pool.fetchval("SELECT count(*) FROM outbox_events") == 1


async def test_without_redis_everything_arrives_all_the_same(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, servers: EmbeddedServers
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe()
    start_worker()
    servers.valkey.stop()
    try:
        status, _ = await thread.send(payment("pi_1", "shop:main"))
        assert status == 200
        await eventually(lambda: len(thread.receiver.deliveries) == 1, timeout=20)
    finally:
        servers.valkey.start()
    await thread.send(payment("pi_2", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 2, timeout=20)
    assert await thread.balance("shop:main") == 3000


async def test_a_restart_of_postgresql_is_survived(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, servers: EmbeddedServers
) -> None:
    await thread.open_account("shop:main")
    await thread.subscribe()
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 1)
    await asyncio.to_thread(servers.postgres.restart)
    await eventually(lambda: _accepted(thread, "pi_2"), timeout=20)
    await eventually(
        lambda: {delivery.event["data"]["id"] for delivery in thread.receiver.deliveries} == {"pi_1", "pi_2"},
        timeout=20,
    )
    assert await thread.balance("shop:main") == 3000


async def test_the_clock_sweeps(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_second = replace(table.JOBS["sweep"], clock={"second": set(range(60))})
    monkeypatch.setitem(cast("dict[str, table.Job]", table.JOBS), "sweep", each_second)
    await thread.service.database.connections.pool.execute(
        "INSERT INTO workers (id, name, seen_at) VALUES (gen_random_uuid(), 'long dead', now() - interval '2 h')"
    )
    await thread.send(payment("pi_1", None))
    await thread.service.database.connections.pool.execute(
        "UPDATE inbox_events SET state = 'dead', outcome = 'test', finished_at = now()"
    )
    # What a test before this one has counted must not stand for the sweep.
    metrics.DLQ_PENDING.set(0)
    start_worker()
    # The whole page takes as long as all that earlier tests have left in it.
    await eventually(lambda: metrics.REGISTRY.get_sample_value("dlq_messages_pending") == 1, timeout=15)

    async def pruned() -> bool:
        names = await thread.service.database.connections.pool.fetch("SELECT name FROM workers")
        return "long dead" not in {row["name"] for row in names}

    await eventually(pruned)


async def test_a_delivery_whose_worker_died_at_its_last_attempt_has_failed(thread: Thread) -> None:
    database = thread.service.database
    await thread.subscribe()
    await database.connections.pool.execute(
        "INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, attempts, lease_worker, lease_token,"
        " lease_until) SELECT gen_random_uuid(), gen_random_uuid(), id, 'leased', 3, gen_random_uuid(),"
        " gen_random_uuid(), now() + interval '1 h' FROM webhook_endpoints"
    )
    assert await take_over_deliveries(database, Schedule(1.0, 2.0, max_attempts=3)) == 1
    assert [row["state"] for row in await thread.deliveries()] == ["failed"]


async def test_wake_ups_are_what_makes_it_quick(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the poll as good as off, only wake-ups can move an event along."""
    monkeypatch.setattr(table, "POLL_SECONDS", 3600.0)
    await thread.open_account("shop:main")
    await thread.subscribe()
    start_worker()
    await thread.send(payment("pi_0", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 1)
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 2)


async def _die(thread: Thread, victim: subprocess.Popen[bytes]) -> None:
    """Kill a worker, and let the six seconds pass after which it counts as dead."""
    victim.kill()
    victim.wait()
    await thread.service.database.connections.pool.execute(
        "UPDATE workers SET seen_at = seen_at - interval '6 s'"
    )


async def _outcome(thread: Thread, event_id: str, outcome: str) -> bool:
    return (await thread.inbox(event_id)).get("outcome") == outcome


async def _accepted(thread: Thread, intent: str) -> bool:
    status, _ = await thread.send(payment(intent, "shop:main"))
    assert status in {200, 503}
    return status == 200
