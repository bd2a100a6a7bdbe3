"""The Redis client. Redis is only a shortcut: each caller must work without it, so every wait is short and bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from core.settings import Settings

# A request waits at most this long for Redis before it goes on without it.
REDIS_TIMEOUT_SECONDS = 0.25
# One process has a guard lane and a few readers; the bound keeps a stuck Redis from eating file descriptors.
REDIS_MAX_CONNECTIONS = 32


class _Written:
    """A kind of connection that tells a write on a closed socket as a lost connection.

    A connection that was reset while nobody used it still counts as connected, and uvloop raises RuntimeError for it.
    """

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc] # of the class beside this one
        except RuntimeError as error:
            raise RedisConnectionError(str(error)) from error


def open_redis(settings: Settings) -> Redis:
    """Return a client that connects on first use and never retries by itself, because its callers know better."""
    client: Redis = Redis.from_url(
        str(settings.redis_url),
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        max_connections=REDIS_MAX_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
    )
    pool: Any = client.connection_pool  # whose members carry no types
    pool.connection_class = type("Connection", (_Written, pool.connection_class), {})
    return client
