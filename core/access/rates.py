"""Rate limits: limits, their state as headers, and the counting in memory while Redis is gone.

Most limits are GCRA, the leaky bucket with one number as its state: the time at which the bucket is full again. The
rest is known to the microsecond, but a burst and its refill pass within one minute. A limit with a window lets no more
than its number through in any such time; its state is the number of requests in each second of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import Refusal

MICROSECONDS = 1_000_000
MINUTE_US = 60 * MICROSECONDS
# Memory holds so many buckets of about 200 bytes each. The one unused for the longest goes first; it is likely full.
MEMORY_BUCKETS = 10_000

Headers = tuple[tuple[str, str], ...]


class Limit(NamedTuple):
    """A limit: `burst` requests at once after a pause, then one every `step_us` microseconds, for each `of`.

    With a `window_us`, which is whole seconds, it is no more than `burst` in any such time.
    """

    step_us: int
    burst: int
    of: str
    window_us: int = 0

    @property
    def burst_us(self) -> int:
        """The microseconds that an empty bucket takes to be full again."""
        return self.step_us * self.burst


# A limit, and the microseconds that its bucket lacks to be full.
State = tuple[Limit, int]


class RateLimited(Refusal):
    """The caller comes too often. `headers` are those of the limit; `retry_after` is exact, in seconds."""

    def __init__(self, limit: Limit, fill_us: int, cost: int) -> None:
        allowed = (
            f"{limit.burst} within {limit.window_us // MICROSECONDS} seconds"
            if limit.window_us
            else f"{limit.burst} at once and then {MICROSECONDS / limit.step_us:g} a second"
        )
        super().__init__(
            "rate_limited",
            f"Too many requests from this {limit.of}: {allowed} are allowed. Nothing was done; repeat the request"
            " later.",
            retry_after=max(_wait_us(limit, fill_us, cost), 1) / MICROSECONDS,
        )
        self.headers = rate_headers(limit, fill_us)


def limit(per_second: int, burst: int, of: str) -> Limit:
    """Return the limit of `per_second` (1 to 1,000,000), in whole microseconds, rounded in the caller's favour."""
    return Limit(max(1, MICROSECONDS // per_second), burst, of)


def a_minute(count: int, of: str) -> Limit:
    """Return the limit of `count` requests in any 60 seconds."""
    return Limit(max(1, MINUTE_US // count), count, of, MINUTE_US)


def tighter(states: Sequence[State]) -> State:
    """Return the limit with the fewest requests left."""
    tightest = states[0]
    for state in states[1:]:
        if _left(*state) < _left(*tightest):
            tightest = state
    return tightest


def refusal(states: Sequence[State], cost: int) -> RateLimited:
    """Return the refusal by the limit that takes longest to have room for `cost` again."""
    return RateLimited(*max(states, key=lambda state: _wait_us(state[0], state[1], cost)), cost)


def rate_headers(limit: Limit, fill_us: int) -> Headers:
    """Return `RateLimit-Limit`, `-Remaining` and `-Reset` (seconds until the bucket is full again).

    These are the three of draft-ietf-httpapi-ratelimit-headers-03 to -07, which clients read. Later drafts fold them
    into one structured field, which few do.
    """
    # After a whole window it is empty, and the second that had begun has ended, too.
    reset_us = min(fill_us, limit.window_us + MICROSECONDS) if limit.window_us else fill_us
    return (
        ("RateLimit-Limit", str(limit.burst)),
        ("RateLimit-Remaining", str(_left(limit, fill_us))),
        ("RateLimit-Reset", str(-(-reset_us // MICROSECONDS))),
    )


def _left(limit: Limit, fill_us: int) -> int:
    # The rest is the burst less the bucket's lack, in whole requests.
    return max(0, limit.burst + -fill_us // limit.step_us)


def _wait_us(limit: Limit, fill_us: int, cost: int) -> int:
    return fill_us + cost * limit.step_us - limit.burst_us


class MemoryBuckets:
    """The buckets of one process's memory. Each process then admits as many requests as all did together."""

    def __init__(self, bound: int = MEMORY_BUCKETS) -> None:
        self._full_at: OrderedDict[str, int] = OrderedDict()
        self._bound = bound

    def take(self, asked: Sequence[tuple[str, Limit]], cost: int, now_us: int) -> tuple[bool, list[int]]:
        """Take `cost` from every bucket or from none; return whether it was taken, and each bucket's lack now (us)."""
        fills = [min(max(self._full_at.get(name, 0) - now_us, 0), limit.burst_us) for name, limit in asked]
        if any(_wait_us(limit, fill, cost) > 0 for (_, limit), fill in zip(asked, fills, strict=True)):
            return False, fills
        after = [fill + cost * limit.step_us for (_, limit), fill in zip(asked, fills, strict=True)]
        for (name, _), fill in zip(asked, after, strict=True):
            self._full_at[name] = now_us + fill
            self._full_at.move_to_end(name)
        while len(self._full_at) > self._bound:
            self._full_at.popitem(last=False)
        return True, after

    def __len__(self) -> int:
        return len(self._full_at)


class MemoryWindows:
    """The windows of one process's memory."""

    def __init__(self, bound: int = MEMORY_BUCKETS) -> None:
        self._seconds: OrderedDict[str, OrderedDict[int, int]] = OrderedDict()
        self._bound = bound

    def take(self, name: str, limit: Limit, cost: int, now_us: int) -> tuple[bool, int]:
        """Take `cost` from a window, or nothing. Return whether, and the lack that the script tells."""
        this_second, window = now_us // MICROSECONDS, limit.window_us // MICROSECONDS
        seconds = self._seconds.setdefault(name, OrderedDict())
        self._seconds.move_to_end(name)
        while len(self._seconds) > self._bound:
            self._seconds.popitem(last=False)
        while seconds and next(iter(seconds)) + window < this_second:
            seconds.popitem(last=False)
        lacking = sum(seconds.values()) + cost - limit.burst
        if lacking <= 0:
            seconds[this_second] = seconds.get(this_second, 0) + cost
            return True, sum(seconds.values()) * limit.step_us
        left_us = now_us
        for second, count in seconds.items():
            if lacking <= 0:
                break
            lacking -= count
            left_us = (second + window + 1) * MICROSECONDS
        return False, left_us - now_us + limit.burst_us - cost * limit.step_us

    def __len__(self) -> int:
        return len(self._seconds)
