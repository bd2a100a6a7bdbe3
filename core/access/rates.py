"""Rate limits by GCRA: limits, their state as headers, and the counting in memory while Redis is gone.

GCRA is the leaky bucket with one number as its state: the time at which the bucket is full again. It has no windows and
so no double rate at their edges, and the rest is known to the microsecond.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from core.errors import Refusal

MICROSECONDS = 1_000_000
# Memory holds so many buckets of about 200 bytes each. The one unused for the longest goes first; it is likely full.
MEMORY_BUCKETS = 10_000

Headers = tuple[tuple[str, str], ...]


class Limit(NamedTuple):
    """A limit: `burst` requests at once after a pause, then one every `step_us` microseconds, for each `of`."""

    step_us: int
    burst: int
    of: str

    @property
    def burst_us(self) -> int:
        """The microseconds that an empty bucket takes to be full again."""
        return self.step_us * self.burst


# A limit, and the microseconds that its bucket lacks to be full.
State = tuple[Limit, int]


class RateLimited(Refusal):
    """The caller comes too often. `headers` are those of the limit; `retry_after` is exact, in seconds."""

    def __init__(self, limit: Limit, fill_us: int, cost: int) -> None:
        super().__init__(
            "rate_limited",
            f"Too many requests from this {limit.of}: {limit.burst} at once and then"
            f" {MICROSECONDS / limit.step_us:g} a second are allowed. Nothing was done; repeat the request later.",
            retry_after=max(_wait_us(limit, fill_us, cost), 1) / MICROSECONDS,
        )
        self.headers = rate_headers(limit, fill_us)


def limit(per_second: int, burst: int, of: str) -> Limit:
    """Return the limit of `per_second` (1 to 1,000,000), in whole microseconds, rounded in the caller's favour."""
    return Limit(max(1, MICROSECONDS // per_second), burst, of)


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
    return (
        ("RateLimit-Limit", str(limit.burst)),
        ("RateLimit-Remaining", str(_left(limit, fill_us))),
        ("RateLimit-Reset", str(-(-fill_us // MICROSECONDS))),
    )


def _left(limit: Limit, fill_us: int) -> int:
    # The rest is the burst less the bucket's lack, in whole requests.
    return limit.burst + -fill_us // limit.step_us


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
