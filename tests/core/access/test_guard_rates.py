"""Rate limits through the guard: who is limited together with whom, what a refusal costs, what the headers say."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from core.access.api_keys import Principal
from core.access.guard import Admission, Guard, batch_cost
from core.access.leases import LEASED_PART
from core.access.rates import RateLimited

GuardFactory = Callable[..., Guard]
Eventually = Callable[..., Awaitable[Any]]

# A step of one second: no test takes long enough for a limit to move by itself.
SLOW = {
    "v1_rate_limit_per_second": 1,
    "v1_rate_limit_burst": 5,
    "v1_rate_limit_address_per_second": 1,
    "v1_rate_limit_address_burst": 8,
}


def _left(admission: Admission) -> int:
    return int(dict(admission.headers)["RateLimit-Remaining"])


async def test_a_key_has_its_burst_and_then_waits(guards: GuardFactory, caller: Principal) -> None:
    guard = guards(**SLOW)
    admitted = [await guard.admit(principal=caller, address="192.0.2.1") for _ in range(5)]
    assert [_left(admission) for admission in admitted] == [4, 3, 2, 1, 0]
    assert dict(admitted[0].headers) == {
        "RateLimit-Limit": "5",
        "RateLimit-Remaining": "4",
        "RateLimit-Reset": "1",
    }
    with pytest.raises(RateLimited) as refused:
        await guard.admit(principal=caller, address="192.0.2.1")
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 1
    assert dict(refused.value.headers)["RateLimit-Remaining"] == "0"


async def test_a_refused_request_counts_nowhere(guards: GuardFactory, caller: Principal) -> None:
    guard = guards(**SLOW)
    await guard.admit(principal=caller, address="192.0.2.1", cost=5)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await guard.admit(principal=caller, address="192.0.2.1", key="k", fingerprint=bytes(32))
    # 8 less the 5 that were admitted, less this one.
    assert _left(await guard.admit(principal=None, address="192.0.2.1")) == 2


async def test_keys_behind_one_address_share_the_address(guards: GuardFactory) -> None:
    guard = guards(**SLOW)
    callers = [Principal(number, "shop", frozenset(), f"key{number}") for number in range(9)]
    for caller in callers[:8]:
        await guard.admit(principal=caller, address="192.0.2.1")
    with pytest.raises(RateLimited, match="this address"):
        await guard.admit(principal=callers[8], address="192.0.2.1")
    assert _left(await guard.admit(principal=callers[8], address="192.0.2.2")) == 4


async def test_addresses_of_one_ipv6_network_share_it(guards: GuardFactory) -> None:
    guard = guards(**SLOW)
    for number in range(8):
        await guard.admit(principal=None, address=f"2001:db8::{number}")
    with pytest.raises(RateLimited):
        await guard.admit(principal=None, address="2001:db8::ffff")
    await guard.admit(principal=None, address="2001:db8:0:1::1")


async def test_processes_count_together(guards: GuardFactory, caller: Principal) -> None:
    processes = [guards(**SLOW), guards(**SLOW)]
    answers = await asyncio.gather(
        *(processes[number % 2].admit(principal=caller, address="192.0.2.1") for number in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Admission) for answer in answers) == 5
    assert sum(isinstance(answer, RateLimited) for answer in answers) == 15


async def test_a_batch_counts_by_its_size_and_never_more_than_a_burst(
    guards: GuardFactory, caller: Principal
) -> None:
    assert [batch_cost(items) for items in (0, 1, 100, 101, 5_000)] == [1, 1, 1, 2, 50]
    guard = guards(**SLOW)
    assert _left(await guard.admit(principal=caller, address="192.0.2.1", cost=3)) == 2
    other = Principal(8, "other", frozenset(), "bbbbbbbbbbbb")
    assert _left(await guard.admit(principal=other, address="192.0.2.2", cost=50)) == 0


async def test_limits_can_be_switched_off(guards: GuardFactory, caller: Principal, redis: Redis) -> None:
    guard = guards(**SLOW, rate_limit_enabled=False)
    for _ in range(20):
        admission = await guard.admit(principal=caller, address="192.0.2.1")
        assert admission.headers == ()
    assert await redis.dbsize() == 0


async def test_requests_share_round_trips_and_names_share_a_prefix(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    guard = guards(**SLOW | {"v1_rate_limit_burst": 1000, "v1_rate_limit_address_burst": 1000})
    await guard.admit(principal=caller, address="192.0.2.1")
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await asyncio.gather(
        *(
            guard.admit(principal=caller, address="192.0.2.1", key=f"k{number}", fingerprint=bytes(32))
            for number in range(128)
        )
    )
    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before == 1
    names = [name.decode() async for name in redis.scan_iter(count=1000)]
    assert len(names) == 130
    assert all(name.startswith("ts:testepoch:") for name in names)
    # One hash tag, so that a cluster can run the script.
    assert {name[name.index("{") : name.index("}")] for name in names} == {"{guard"}
    assert all([await redis.pttl(name) > 0 for name in names])


LEASED = {
    "v1_rate_limit_per_second": 1,
    "v1_rate_limit_burst": 1000,
    "v1_rate_limit_address_per_second": 1,
    "v1_rate_limit_address_burst": 1000,
}


async def test_a_request_without_a_key_waits_for_no_round_trip_and_is_counted_all_the_same(
    guards: GuardFactory, caller: Principal, redis: Redis
) -> None:
    guard = guards(**LEASED)
    lefts = [_left(await guard.admit(principal=caller, address="192.0.2.1")) for _ in range(9)]
    assert lefts == list(range(999, 990, -1))
    # A lease is good for 25 ms. On a slow machine some of these nine have asked again.
    asked = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await guard.close()
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - asked <= 1
    assert _left(await guards(**LEASED).admit(principal=caller, address="192.0.2.9")) == 990


async def test_what_is_owed_is_told_without_another_request(
    guards: GuardFactory, caller: Principal, eventually: Eventually
) -> None:
    one, other = guards(**LEASED), guards(**LEASED)
    for _ in range(4):
        await one.admit(principal=caller, address="192.0.2.1")

    await eventually(lambda: not one._leases)
    assert _left(await other.admit(principal=caller, address="192.0.2.9")) == 995


async def test_processes_with_leases_let_little_too_much_through(
    guards: GuardFactory, caller: Principal
) -> None:
    processes = [guards(**LEASED), guards(**LEASED)]
    admitted = 0
    for _ in range(400):
        answers = await asyncio.gather(
            *(guard.admit(principal=caller, address="192.0.2.1") for guard in processes for _ in range(2)),
            return_exceptions=True,
        )
        admitted += sum(isinstance(answer, Admission) for answer in answers)
    # The bucket refills one a second meanwhile.
    assert 1000 <= admitted <= 1000 + len(processes) * 1000 // LEASED_PART + 60


async def test_a_small_burst_is_never_leased(guards: GuardFactory, caller: Principal, redis: Redis) -> None:
    guard = guards(**LEASED | {"v1_rate_limit_burst": LEASED_PART - 1})
    await guard.admit(principal=caller, address="192.0.2.1")
    asked = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    for _ in range(5):
        await guard.admit(principal=caller, address="192.0.2.1")
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - asked == 5
