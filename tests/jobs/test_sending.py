"""Sending by a whole worker: what wakes it, and what it does about receivers that fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from core import tasks
from core.inbox.processing import Processor
from core.redis import open_redis
from core.settings import Settings
from core.work import wakeup
from core.work.wakeup import Alarm, Waker
from jobs import table
from tests.jobs.merchant import Thread, payment

Eventually = Callable[..., Awaitable[Any]]
StartWorker = Callable[..., asyncio.Event]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "webhook_base_delay_secs": 0.01,
            "webhook_backoff_factor": 1.0,
            "webhook_max_attempts": 100,
            "webhook_breaker_open_secs": 0.05,
        }
    )


async def unwell(request: web.Request) -> web.Response:
    return web.Response(status=500, text="not now")


async def gone(request: web.Request) -> web.Response:
    return web.Response(status=410)


async def test_a_receiver_that_was_left_alone_gets_everything_in_the_end(
    thread: Thread, start_worker: StartWorker, eventually: Eventually
) -> None:
    thread.receiver.answers += [unwell] * 12
    await thread.open_account("shop:main")
    await thread.subscribe()
    for number in range(30):
        await thread.send(payment(f"pi_{number}", "shop:main", 1))
    start_worker()
    await eventually(lambda: _states(thread, "delivered", 30), timeout=30)
    assert len(thread.receiver.deliveries) == 42
    for delivery in thread.receiver.deliveries:
        thread.receiver.verify(delivery)
    assert len({delivery.headers["X-Delivery-ID"] for delivery in thread.receiver.deliveries}) == 30


async def test_the_other_endpoints_hear_at_once_of_one_that_was_switched_off(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the poll as good as off, only the wake-up can bring the second event."""
    monkeypatch.setattr(table, "POLL_SECONDS", 3600.0)
    await thread.open_account("shop:main")
    dead = await thread.subscribe(event_types=("payment.*",))
    await thread.subscribe(event_types=("webhook_endpoint.*",))
    thread.receiver.answers.append(gone)
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: len(thread.receiver.deliveries) == 2)
    told = thread.receiver.deliveries[1]
    thread.receiver.verify(told)
    assert told.event["type"] == "webhook_endpoint.disabled"
    assert (told.event["data"]["id"], told.event["data"]["reason"]) == (dead["id"], "gone")


async def test_what_is_sent_again_on_demand_is_sent_at_once(
    thread: Thread, start_worker: StartWorker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "POLL_SECONDS", 3600.0)
    await thread.open_account("shop:main")
    endpoint = await thread.subscribe()
    start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: _states(thread, "delivered", 1))
    (row,) = await thread.deliveries()
    headers = {"Authorization": f"Bearer {thread.key}"}
    answer = await thread.api.post(f"/v1/webhook-deliveries/{row['id']}/resend", headers=headers)
    assert answer.status == 202
    await eventually(lambda: len(thread.receiver.deliveries) == 2)
    answer = await thread.api.post(f"/v1/webhook-endpoints/{endpoint['id']}/test", headers=headers)
    assert answer.status == 202
    await eventually(lambda: len(thread.receiver.deliveries) == 3)
    assert thread.receiver.deliveries[2].event["type"] == "webhook.test"


async def _states(thread: Thread, state: str, count: int) -> bool:
    return [row["state"] for row in await thread.deliveries()] == [state] * count


@pytest.fixture
async def alarm(settings: Settings, thread: Thread) -> AsyncIterator[Alarm]:
    """An alarm of another process."""
    client = open_redis(settings)
    found = Alarm(client, thread.service.epoch)
    listener = asyncio.create_task(found.listen())
    yield found
    await tasks.end(listener)
    await client.aclose()


async def test_what_a_worker_tells_while_it_stops_wakes_the_others(
    thread: Thread,
    start_worker: StartWorker,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    alarm: Alarm,
) -> None:
    """The last answer to a worker that stops switches an endpoint off, of which an event tells."""
    drained, go_on = asyncio.Event(), asyncio.Event()
    drain = Processor.drain

    async def drain_and_say(processor: Processor, timeout_seconds: float) -> None:
        await drain(processor, timeout_seconds)
        drained.set()

    async def gone_later(request: web.Request) -> web.Response:
        await go_on.wait()
        return await gone(request)

    monkeypatch.setattr(Processor, "drain", drain_and_say)
    await thread.open_account("shop:main")
    await thread.subscribe()
    thread.receiver.answers.append(gone_later)
    stopping = start_worker()
    await thread.send(payment("pi_1", "shop:main"))
    await eventually(lambda: thread.receiver.deliveries)
    stopping.set()
    await drained.wait()
    # Messages come in their order: behind this one there is none of before.
    waker = Waker(thread.service.redis, thread.service.epoch)

    async def heard() -> bool:
        waker.wake(wakeup.DELIVERIES)
        return await alarm.wait(wakeup.DELIVERIES, 1.0)

    await eventually(heard)
    await waker.close()
    await alarm.wait(wakeup.OUTBOX, 0.0)
    go_on.set()
    assert await alarm.wait(wakeup.OUTBOX, 10.0)
