"""Guards as the processes of one service have them: same Redis, same settings, nothing else in common."""

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from core.access.api_keys import Principal
from core.access.guard import Guard
from core.redis import open_redis
from core.settings import Settings

GuardFactory = Callable[..., Guard]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test's own, to look into what the guards write."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def guards(settings: Settings) -> AsyncIterator[GuardFactory]:
    """Makes a guard as each process makes its own; keywords override settings."""
    opened: list[tuple[Guard, Redis]] = []

    def make(**overrides: object) -> Guard:
        client = open_redis(settings)
        guard = Guard(client, settings.model_copy(update=overrides), "testepoch")
        opened.append((guard, client))
        return guard

    yield make
    for guard, client in opened:
        await guard.close()
        await client.aclose()


@pytest.fixture
def guard(guards: GuardFactory) -> Guard:
    """One process's guard."""
    return guards()


@pytest.fixture
def caller() -> Principal:
    """Who calls."""
    return Principal(7, "shop", frozenset({"transfers:write"}), "aaaaaaaaaaaa")
