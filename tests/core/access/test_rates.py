"""GCRA against a token bucket in exact fractions: the script inside Redis, and the memory that stands in for it."""

from collections.abc import AsyncIterator
from fractions import Fraction
from importlib import resources
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from core.access.rates import (
    Limit,
    MemoryBuckets,
    MemoryWindows,
    RateLimited,
    a_minute,
    limit,
    rate_headers,
    refusal,
    tighter,
)

SCRIPT = resources.files("core.access").joinpath("guard.lua").read_text()
# The real script with its one clock replaced, so that time stands where the test puts it.
CLOCK = "call('TIME')"
START_US = 1_795_000_000_000_000

# Steps of seconds, because Redis forgets a bucket by its own clock once it is full.
STEPS_US = st.integers(10_000_000, 500_000_000)
LIMITS = st.builds(
    Limit, step_us=STEPS_US, burst=st.integers(1, 20), of=st.just("API key"), window_us=st.just(0)
)
# Pause before the request, which bucket of two keys, whether it has an address, cost.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 2_000_000_000), st.integers(0, 1), st.booleans(), st.integers(1, 3)), max_size=40
)


class TokenBucket:
    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.tokens = Fraction(limit.burst)
        self.at_us = START_US

    def advance(self, now_us: int) -> None:
        earned = Fraction(now_us - self.at_us, self.limit.step_us)
        self.tokens = min(Fraction(self.limit.burst), self.tokens + earned)
        self.at_us = now_us

    @property
    def lacks_us(self) -> int:
        return int((self.limit.burst - self.tokens) * self.limit.step_us)


class Model:
    def __init__(self, key_limit: Limit, address_limit: Limit) -> None:
        self.buckets = {name: TokenBucket(key_limit) for name in ("key:0", "key:1")}
        self.buckets["address"] = TokenBucket(address_limit)

    def take(self, names: list[str], cost: int, now_us: int) -> tuple[bool, list[int]]:
        asked = [self.buckets[name] for name in names]
        for bucket in asked:
            bucket.advance(now_us)
        had = all(bucket.tokens >= cost for bucket in asked)
        for bucket in asked:
            bucket.tokens -= cost if had else 0
        return had, [bucket.lacks_us for bucket in asked]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@hypothesis_settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key_limit=LIMITS, address_limit=LIMITS, requests=REQUESTS, batched=st.booleans())
async def test_the_script_counts_like_a_token_bucket(
    redis: Redis,
    key_limit: Limit,
    address_limit: Limit,
    requests: list[tuple[int, int, bool, int]],
    *,
    batched: bool,
) -> None:
    await redis.flushdb()
    model = Model(key_limit, address_limit)
    now_us = START_US
    for pause_us, key, with_address, cost in requests:
        now_us += pause_us
        names = [f"key:{key}", "address"] if with_address else [f"key:{key}"]
        # In a batch, the same request a second time at the same moment.
        questions = [(names, min(cost, key_limit.burst, address_limit.burst))] * (2 if batched else 1)
        expected = [model.take(*question, now_us) for question in questions]
        assert await _run(redis, questions, key_limit, address_limit, now_us) == expected


@given(key_limit=LIMITS, address_limit=LIMITS, requests=REQUESTS)
def test_memory_counts_like_a_token_bucket(
    key_limit: Limit, address_limit: Limit, requests: list[tuple[int, int, bool, int]]
) -> None:
    model, memory = Model(key_limit, address_limit), MemoryBuckets()
    now_us = START_US
    for pause_us, key, with_address, cost in requests:
        now_us += pause_us
        names = [f"key:{key}", "address"] if with_address else [f"key:{key}"]
        asked = [(name, address_limit if name == "address" else key_limit) for name in names]
        assert memory.take(asked, cost, now_us) == model.take(names, cost, now_us)


async def test_a_clock_set_back_shuts_nobody_out_for_longer_than_a_burst(redis: Redis) -> None:
    narrow = limit(1, 2, of="API key")
    questions = [(["key:0"], 1)]
    assert await _run(redis, questions * 2, narrow, narrow, START_US) == [
        (True, [1_000_000]),
        (True, [2_000_000]),
    ]
    an_hour_ago = START_US - 3_600_000_000
    assert await _run(redis, questions, narrow, narrow, an_hour_ago) == [(False, [2_000_000])]


async def test_a_full_bucket_leaves_nothing_behind_in_redis(redis: Redis) -> None:
    narrow = limit(1000, 5, of="API key")
    await _run(redis, [(["key:0"], 5)], narrow, narrow, START_US)
    assert 0 < await redis.pttl("key:0") <= 5
    assert int(await redis.get("key:0")) == START_US + 5_000


def test_memory_holds_so_many_buckets_and_no_more() -> None:
    narrow, memory = limit(1, 1, of="address"), MemoryBuckets(bound=100)
    for number in range(1000):
        assert memory.take([(str(number), narrow)], 1, START_US)[0]
    assert len(memory) == 100
    assert not memory.take([("999", narrow)], 1, START_US)[0]


def test_headers_say_what_is_left() -> None:
    hundred = limit(10, 100, of="API key")
    assert rate_headers(hundred, 100_000) == (
        ("RateLimit-Limit", "100"),
        ("RateLimit-Remaining", "99"),
        ("RateLimit-Reset", "1"),
    )
    assert dict(rate_headers(hundred, 0))["RateLimit-Reset"] == "0"
    # Half a request is none.
    assert dict(rate_headers(hundred, 9_950_000)) == {
        "RateLimit-Limit": "100",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "10",
    }


def test_the_limit_with_less_left_speaks() -> None:
    key_limit, address_limit = limit(10, 100, of="API key"), limit(100, 1000, of="address")
    assert tighter([(key_limit, 100_000), (address_limit, 10_000)])[0] is key_limit
    assert tighter([(key_limit, 100_000), (address_limit, 9_990_000)])[0] is address_limit


def test_a_refusal_says_whose_limit_it_is_and_when_to_come_back() -> None:
    key_limit, address_limit = limit(10, 100, of="API key"), limit(100, 1000, of="address")
    refused = refusal([(key_limit, 9_950_000), (address_limit, 10_000_000)], cost=3)
    assert isinstance(refused, RateLimited)
    assert refused.code == "rate_limited"
    assert "API key" in refused.detail
    assert refused.retry_after == pytest.approx(0.25)
    assert dict(refused.headers)["RateLimit-Remaining"] == "0"


@pytest.mark.parametrize(
    ("per_second", "step_us"), [(1, 1_000_000), (3, 333_333), (5_000, 200), (1_000_000, 1)]
)
def test_steps_are_whole_microseconds(per_second: int, step_us: int) -> None:
    assert limit(per_second, 1, of="address").step_us == step_us


WINDOWS = st.builds(a_minute, st.integers(1, 30), of=st.just("user"))
# Pauses up to some minutes, and requests at one moment.
ARRIVALS = st.lists(st.sampled_from((0, 0, 1, 999_999, 1_500_000, 20_000_000, 61_000_000)), max_size=60)


@hypothesis_settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(window=WINDOWS, pauses=ARRIVALS)
async def test_a_window_lets_no_more_than_its_number_through(
    redis: Redis, window: Limit, pauses: list[int]
) -> None:
    """In any 60 seconds; and who waits as long as they were told gets through, in Redis as in memory."""
    await redis.flushdb()
    admitted: list[int] = []
    memory, now_us = MemoryWindows(), START_US
    for pause in pauses:
        now_us += pause
        recent = [at for at in admitted if at > now_us - 60_000_000]
        [(had, [fill])] = await _run(redis, [(["key:0"], 1)], window, window, now_us)
        assert memory.take("key:0", window, 1, now_us) == (had, fill)
        if had:
            admitted.append(now_us)
            assert len(recent) < window.burst
            continue
        refused = refusal([(window, fill)], cost=1)
        assert "within 60 seconds" in refused.detail
        assert refused.retry_after is not None
        assert 0 < refused.retry_after <= 61
        assert dict(refused.headers)["RateLimit-Remaining"] == "0"
        now_us += round(refused.retry_after * 1_000_000)
        [(had, [fill])] = await _run(redis, [(["key:0"], 1)], window, window, now_us)
        assert had
        assert memory.take("key:0", window, 1, now_us) == (True, fill)
        admitted.append(now_us)


async def test_a_window_by_a_clock_set_back_ends_after_a_minute(redis: Redis) -> None:
    two = a_minute(2, of="user")
    assert [had for had, _ in await _run(redis, [(["key:0"], 1)] * 3, two, two, START_US)] == [
        True,
        True,
        False,
    ]
    earlier = START_US - 3_600_000_000
    [(had, [fill])] = await _run(redis, [(["key:0"], 1)], two, two, earlier)
    assert not had
    assert refusal([(two, fill)], cost=1).retry_after == pytest.approx(61, abs=1)


def test_memory_holds_so_many_windows_and_no_more() -> None:
    one, memory = a_minute(1, of="address"), MemoryWindows(bound=100)
    for number in range(1000):
        assert memory.take(str(number), one, 1, START_US)[0]
    assert len(memory) == 100
    assert not memory.take("999", one, 1, START_US)[0]


async def _run(
    redis: Redis, questions: list[tuple[list[str], int]], key_limit: Limit, address_limit: Limit, now_us: int
) -> list[tuple[bool, list[int]]]:
    seconds, microseconds = divmod(now_us, 1_000_000)
    assert SCRIPT.count(CLOCK) == 1
    script = SCRIPT.replace(CLOCK, f"{{'{seconds}', '{microseconds}'}}")
    numbers = {"key:0": 1, "key:1": 2, "address": 3}
    buckets = [
        field
        for name in numbers
        for one in [address_limit if name == "address" else key_limit]
        for field in (name, one.step_us, one.burst_us, one.window_us, 0)
    ]
    asked: list[int | str] = []
    for names, cost in questions:
        address = numbers["address"] if "address" in names else 0
        asked += [numbers[names[0]], address, cost, "", ""]
    pack = msgspec.msgpack.encode
    arguments: list[Any] = [pack(buckets), pack(asked), pack([]), 10_000, 60_000]
    running: Any = redis.eval(script, 1, "ts:", *arguments)  # typed for both kinds of client
    reply = await running
    return [
        (reply[3 * at] == 0, reply[3 * at + 1 : 3 * at + 1 + len(names)])
        for at, (names, _) in enumerate(questions)
    ]
