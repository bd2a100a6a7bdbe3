"""The guard's way to Redis: one script on a line of its own, switched off while Redis is gone."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import NoScriptError

from core import tasks
from core.redis import FAILURES, Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from core.redis import Command

log = structlog.get_logger(__name__)

# A request waits at most this long for Redis, connecting included, before it goes on without it.
CALL_TIMEOUT_SECONDS = 0.25
# A probe looks for a lost Redis this often.
PROBE_SECONDS = 1.0


# A probe writes this name, because a Redis whose memory is full answers every question and takes nothing in. The name
# has the guard's hash tag, so that in a cluster it goes where the guard's names go. It is gone at once.
PROBE_NAME = "ts:{guard}:probe"
PROBE_MS = 1


class RedisDown(Exception):
    """Redis cannot be asked at the moment."""


class RedisScript:
    """One script on a line of its own, for one call at a time, because a lane uses it.

    After a failure every call fails without a wait, until a probe in the background has reached Redis again.
    """

    def __init__(self, redis: Redis, script: str, *, on_change: Callable[[bool], None]) -> None:
        self._line = Line(redis)
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._probe: asyncio.Task[None] | None = None
        self._on_change = on_change
        self.up = True

    async def call(self, keys: int, *arguments: bytes | str | int) -> Any:
        """Run the script. Raises RedisDown when Redis is gone, slower than 250 ms, or unable for another reason."""
        if not self.up:
            raise RedisDown
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                return await self._evaluate(("EVALSHA", self._sha, keys, *arguments))
        except FAILURES as error:
            await self._line.drop()
            self._switch_off(error)
            raise RedisDown from error

    async def close(self) -> None:
        """End the probe and the connection."""
        if self._probe is not None:
            await tasks.end(self._probe)
        await self._line.close()

    async def _evaluate(self, command: Command) -> Any:
        # A line may send a command twice: a second run costs one count too many, and a mark of our own is known by its
        # token.
        try:
            return await self._line.ask(command)
        except NoScriptError:  # Redis was restarted, or its scripts were flushed
            await self._line.ask(("SCRIPT", "LOAD", self._script))
        return await self._line.ask(command)

    def _switch_off(self, error: Exception) -> None:
        if not self.up:
            return
        self.up = False
        log.warning(
            "redis_lost",
            what="rate limits are counted in memory, keys are guarded by PostgreSQL",
            error=repr(error),
        )
        self._on_change(False)
        # The probe belongs to no request: its log lines must not carry the id of the request that lost Redis.
        self._probe = asyncio.create_task(self._look_for_redis(), context=contextvars.Context())

    async def _look_for_redis(self) -> None:
        while not self.up:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                    await self._line.ask(("SCRIPT", "LOAD", self._script))
                    await self._line.ask(("SET", PROBE_NAME, 1, "PX", PROBE_MS))
            except FAILURES:
                await self._line.drop()
            else:
                self.up = True
                self._on_change(True)
                log.info("redis_found")
