"""Wake-ups over Redis: heard by everybody, coalesced, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from core import tasks
from core.redis import open_redis
from core.settings import Settings
from core.work import wakeup
from core.work.wakeup import Alarm, Waker
from ops.embedded import EmbeddedServers

Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Any]:
    client = open_redis(settings)
    yield client
    await client.aclose()


@pytest.fixture
async def alarms(settings: Settings) -> AsyncIterator[list[Alarm]]:
    clients = [open_redis(settings) for _ in range(2)]
    found = [Alarm(client, "epoch") for client in clients]
    listeners = [asyncio.create_task(alarm.listen()) for alarm in found]
    yield found
    await tasks.end(*listeners)
    for client in clients:
        await client.aclose()


async def both_listen(redis: Any, eventually: Eventually) -> None:
    async def listening() -> bool:
        return bool((await redis.pubsub_numsub("ts:epoch:wake"))[0][1] == 2)

    await eventually(listening)


async def test_every_listener_hears_it(redis: Any, alarms: list[Alarm], eventually: Eventually) -> None:
    await both_listen(redis, eventually)
    for alarm in alarms:
        for topic in wakeup.TOPICS:
            await alarm.wait(topic, 0.01)  # the ring that a new subscription begins with
    waker = Waker(redis, "epoch")
    waker.wake(wakeup.INBOX)
    for alarm in alarms:
        assert await alarm.wait(wakeup.INBOX, 5.0)
        assert not await alarm.wait(wakeup.OUTBOX, 0.0)
    await waker.close()


async def test_a_process_does_not_hear_itself(
    redis: Any, alarms: list[Alarm], eventually: Eventually
) -> None:
    """Its own alarm rings at once, without Redis; the message is for the others."""
    await both_listen(redis, eventually)
    own, other = alarms
    for alarm in alarms:
        await alarm.wait(wakeup.OUTBOX, 0.01)
    waker = Waker(redis, "epoch", own)
    waker.wake(wakeup.OUTBOX)
    assert await own.wait(wakeup.OUTBOX, 0.0)
    assert await other.wait(wakeup.OUTBOX, 5.0)
    await waker.close()
    # A second message, from elsewhere, is heard by both; the first one was before it.
    stranger = Waker(redis, "epoch")
    stranger.wake(wakeup.INBOX)
    assert await own.wait(wakeup.INBOX, 5.0)
    assert not await own.wait(wakeup.OUTBOX, 0.0)
    await stranger.close()


async def test_a_thousand_wake_ups_are_a_few_messages(redis: Any) -> None:
    waker = Waker(redis, "epoch")
    before = (await redis.info("commandstats")).get("cmdstat_publish", {"calls": 0})["calls"]
    for _ in range(1000):
        waker.wake(wakeup.INBOX)
        waker.wake(wakeup.OUTBOX)
    await waker.close()
    after = (await redis.info("commandstats"))["cmdstat_publish"]["calls"]
    assert 1 <= after - before <= 2


async def test_a_connection_that_was_closed_while_idle_loses_no_message(
    redis: Any, alarms: list[Alarm], eventually: Eventually
) -> None:
    await both_listen(redis, eventually)
    await alarms[0].wait(wakeup.INBOX, 0.01)
    waker = Waker(redis, "epoch")
    waker.wake(wakeup.INBOX)
    assert await alarms[0].wait(wakeup.INBOX, 5.0)
    # Redis ends all connections of clients that listen to nothing, such as those that were idle for long.
    await redis.client_kill_filter(_type="normal", skipme=True)
    waker.wake(wakeup.INBOX)
    assert await alarms[0].wait(wakeup.INBOX, 5.0)
    await waker.close()
    waker.wake(wakeup.INBOX)
    assert not await alarms[0].wait(wakeup.INBOX, 0.01), "nothing is sent after the end"


async def test_without_redis_waking_costs_nothing_and_listening_heals(
    redis: Any, alarms: list[Alarm], servers: EmbeddedServers, eventually: Eventually
) -> None:
    waker = Waker(redis, "epoch")
    servers.valkey.stop()
    try:
        waker.wake(wakeup.INBOX)
        await eventually(lambda: waker._sender is None)
    finally:
        servers.valkey.start()

    async def heard() -> bool:
        waker.wake(wakeup.OUTBOX)
        return await alarms[0].wait(wakeup.OUTBOX, 0.1)

    await eventually(heard)
    await waker.close()
