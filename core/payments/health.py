"""Health: which providers fail now, as all processes have seen it together.

A breaker opens when FAILURES calls in a row have ended without an answer, in any process, and closes by itself after a
while; then the next failure opens it again for longer, and the next answer forgets everything. Redis counts. While it
is away each process counts for itself, which is less and still enough. A wrong count costs a worse choice, never money.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from redis.asyncio import Redis

_log = structlog.get_logger(__name__)

# Failures in a row: fewer are a bad moment of the network.
FAILURES: Final = 5
OPEN_SECONDS: Final = 15.0
# Each further failure doubles the time up to this: a provider that is well again must not wait for hours.
MOST_OPEN_SECONDS: Final = 240.0
# Failures further apart than this are not in a row.
REMEMBERED_SECONDS: Final = 600.0
# The time for which a process believes what it has read, and for which it leaves a lost Redis alone.
FRESH_SECONDS: Final = 0.5


def open_seconds(failures: int) -> float:
    """Return for how long a breaker is open after so many failures in a row; 0.0: not at all."""
    if failures < FAILURES:
        return 0.0
    return min(OPEN_SECONDS * 2.0 ** min(failures - FAILURES, 16), MOST_OPEN_SECONDS)


class _Count(NamedTuple):
    failures: int = 0
    open_until: float = 0.0
    forgotten_at: float = 0.0


class Health:
    """The breakers of providers. `clock` is that of the process, in seconds."""

    def __init__(self, redis: Redis, epoch: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        # One tag, so that the names of a command lie on one node of a cluster.
        self._prefix = f"ts:{epoch}:{{providers}}:"
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._read: dict[str, float] = {}
        self._away_until = 0.0

    async def failing(self, providers: Collection[str]) -> frozenset[str]:
        """Return those of `providers` that are better left alone now."""
        now = self._clock()
        stale = [
            name for name in sorted(providers) if now - self._read.get(name, -FRESH_SECONDS) >= FRESH_SECONDS
        ]
        if stale and now >= self._away_until:
            names = [key for name in stale for key in (self._failures(name), self._open(name))]
            try:
                found = await self._redis.mget(names)
            except (RedisError, OSError) as error:
                self._lost(error)
            else:
                for name, failures, opened in zip(stale, found[::2], found[1::2], strict=True):
                    self._believe(name, now, int(failures or 0), opened=opened is not None)
        return frozenset(name for name in providers if self._counts.get(name, _Count()).open_until > now)

    def _believe(self, provider: str, now: float, failures: int, *, opened: bool) -> None:
        """Take over what all processes have counted together."""
        self._read[provider] = now
        if failures or opened:
            open_until = now + FRESH_SECONDS if opened else 0.0
            self._counts[provider] = _Count(failures, open_until, now + REMEMBERED_SECONDS)
        else:
            self._counts.pop(provider, None)

    async def note(self, provider: str, *, answered: bool) -> None:
        """Note whether a call was answered, be it by a refusal of the payment."""
        known = self._counts.get(provider)
        if answered:
            if known is not None:
                del self._counts[provider]
                await self._forget(provider)
            return
        now = self._clock()
        before = known.failures if known is not None and known.forgotten_at > now else 0
        failures = await self._count(provider) or before + 1
        open_for = open_seconds(failures)
        self._counts[provider] = _Count(
            failures, now + open_for if open_for else 0.0, now + REMEMBERED_SECONDS
        )
        if open_for:
            _log.warning("payments.provider_failing", provider=provider, failures=failures, seconds=open_for)

    async def _count(self, provider: str) -> int:
        """Count a failure in Redis; return how many there are in a row, 0 while Redis is away."""
        if self._clock() < self._away_until:
            return 0
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.incr(self._failures(provider))
                pipeline.expire(self._failures(provider), int(REMEMBERED_SECONDS))
                failures = int((await pipeline.execute())[0])
            if open_for := open_seconds(failures):
                await self._redis.set(self._open(provider), 1, px=int(open_for * 1000))
        except (RedisError, OSError) as error:
            self._lost(error)
            return 0
        return failures

    async def _forget(self, provider: str) -> None:
        if self._clock() < self._away_until:
            return
        try:
            await self._redis.delete(self._failures(provider), self._open(provider))
        except (RedisError, OSError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        self._away_until = self._clock() + FRESH_SECONDS
        _log.warning("payments.health_in_memory", error=repr(error))

    def _failures(self, provider: str) -> str:
        return f"{self._prefix}failures:{provider}"

    def _open(self, provider: str) -> str:
        return f"{self._prefix}open:{provider}"
