"""Redis stopped, killed, frozen, restarted and emptied under use: no request fails, and all heals by itself."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import LogCapture

from core.access.api_keys import Principal
from core.access.guard import FALLBACK, Guard
from core.access.marks import StoredAnswer
from core.access.rates import RateLimited
from ops.embedded import EmbeddedServers

GuardFactory = Callable[..., Guard]
Eventually = Callable[..., Awaitable[Any]]

FINGERPRINT = bytes(32)
ANSWER = StoredAnswer(201, "application/json", b"{}")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.access.redis_script.PROBE_SECONDS", 0.02)


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[merge_contextvars, capture], cache_logger_on_first_use=False)
    yield capture
    structlog.configure(**before)


async def _admit(guard: Guard, caller: Principal, key: str | None = None) -> None:
    admission = await guard.admit(principal=caller, address="192.0.2.1", key=key, fingerprint=FINGERPRINT)
    assert admission.headers
    admission.finish(ANSWER)


def _fallback() -> float:
    [metric] = FALLBACK.collect()
    return metric.samples[0].value


async def test_redis_killed_and_restarted_under_use(
    guards: GuardFactory,
    caller: Principal,
    servers: EmbeddedServers,
    eventually: Eventually,
    logged: LogCapture,
) -> None:
    # Far from every limit: in memory 8 clients would use up the default ones within a second or two.
    guard = guards(
        v1_rate_limit_per_second=1_000_000,
        v1_rate_limit_burst=10_000_000,
        v1_rate_limit_address_per_second=1_000_000,
        v1_rate_limit_address_burst=10_000_000,
    )
    served = 0
    stopping = False

    async def client(number: int) -> None:
        nonlocal served
        while not stopping:
            await _admit(guard, caller, f"k-{number}-{served}")
            served += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as clients:
        for number in range(8):
            clients.create_task(client(number))
        for _ in range(2):
            before = served
            await eventually(lambda before=before: served > before + 100)
            assert guard.up
            await asyncio.to_thread(servers.valkey.kill)
            await eventually(lambda: not guard.up)
            assert _fallback() == 1
            before = served
            await eventually(lambda before=before: served > before + 100)
            servers.valkey.start()
            await eventually(lambda: guard.up)
            assert _fallback() == 0
        stopping = True
    changes = [entry["event"] for entry in logged.entries if entry["event"].startswith("redis_")]
    assert changes == ["redis_lost", "redis_found"] * 2


async def test_a_restart_between_two_requests_is_not_even_noticed(
    guard: Guard, caller: Principal, servers: EmbeddedServers
) -> None:
    await _admit(guard, caller)
    servers.valkey.restart()
    await _admit(guard, caller)
    assert guard.up


async def test_a_connection_that_was_reset_between_two_requests_is_not_even_noticed(
    guard: Guard, caller: Principal
) -> None:
    """A write on a closed socket is a RuntimeError with uvloop; chaos got two answers 500 of it."""
    await _admit(guard, caller)
    connection: Any = guard._script._line._connection
    connection._writer.transport.abort()
    for _ in range(3):  # the loop closes the socket
        await asyncio.sleep(0)
    assert await guard._script._evaluate(("PING",)) == b"PONG"
    assert guard.up


async def test_a_script_that_redis_forgot_is_loaded_again(
    guard: Guard, caller: Principal, redis: Redis
) -> None:
    await _admit(guard, caller)
    await redis.script_flush()
    await _admit(guard, caller)
    assert guard.up


async def test_a_frozen_redis_is_given_up_and_found_again(
    guard: Guard, caller: Principal, servers: EmbeddedServers, eventually: Eventually
) -> None:
    await _admit(guard, caller)
    assert servers.valkey.pid is not None
    os.kill(servers.valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):  # 0.25 s and what a busy machine adds
            await asyncio.gather(*(_admit(guard, caller, f"k-{number}") for number in range(50)))
            assert not guard.up
            await asyncio.gather(*(_admit(guard, caller, f"k-{number}") for number in range(50)))
    finally:
        os.kill(servers.valkey.pid, signal.SIGCONT)
    await eventually(lambda: guard.up)
    await _admit(guard, caller)


async def test_a_full_redis_is_lost_once_until_it_has_room(
    guard: Guard, caller: Principal, redis: Redis, eventually: Eventually, logged: LogCapture
) -> None:
    await _admit(guard, caller)
    await redis.config_set("maxmemory", 1)
    loads = int((await redis.info("commandstats"))["cmdstat_script|load"]["calls"])

    async def probed() -> bool:
        return int((await redis.info("commandstats"))["cmdstat_script|load"]["calls"]) >= loads + 3

    try:
        with bound_contextvars(request_id="r" * 32):
            await _admit(guard, caller, "a-key-makes-it-ask")
        assert not guard.up
        await eventually(probed)
        assert not guard.up
        await _admit(guard, caller)
    finally:
        await redis.config_set("maxmemory", 0)
    await eventually(lambda: guard.up)
    changes = [entry for entry in logged.entries if entry["event"].startswith("redis_")]
    assert [entry["event"] for entry in changes] == ["redis_lost", "redis_found"]
    assert "request_id" not in changes[1]


async def test_a_redis_that_was_never_there(
    guards: GuardFactory, caller: Principal, servers: EmbeddedServers, eventually: Eventually
) -> None:
    servers.valkey.stop()
    guard = guards()
    await _admit(guard, caller, "k-1")
    assert not guard.up
    servers.valkey.start()
    await eventually(lambda: guard.up)


async def test_rates_are_limited_in_memory_meanwhile(
    guards: GuardFactory, caller: Principal, servers: EmbeddedServers
) -> None:
    guard = guards(v1_rate_limit_per_second=1, v1_rate_limit_burst=3)
    servers.valkey.stop()
    for left in ("2", "1", "0"):
        admission = await guard.admit(principal=caller, address="192.0.2.1")
        assert dict(admission.headers)["RateLimit-Remaining"] == left
    with pytest.raises(RateLimited):
        await guard.admit(principal=caller, address="192.0.2.1")


async def test_twins_in_one_process_need_no_redis(
    guard: Guard, caller: Principal, servers: EmbeddedServers
) -> None:
    servers.valkey.stop()
    leader = await guard.admit(principal=caller, address="192.0.2.1", key="k", fingerprint=FINGERPRINT)
    twin = asyncio.create_task(
        guard.admit(principal=caller, address="192.0.2.1", key="k", fingerprint=FINGERPRINT)
    )
    await asyncio.wait([twin], timeout=0.02)
    leader.finish(ANSWER)
    assert (await twin).replay == ANSWER
