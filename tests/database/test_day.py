"""A day on the servers as they are, without a pooler or a standby: what `make matrix` runs on each of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.database.day import day_at, settings_of_day


@pytest.mark.drill
async def test_a_day(
    database_url: str, redis_url: str, tmp_path: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    async with day_at(settings_of_day(database_url, redis_url, tmp_path)) as day:
        await day.rounds(5)
        assert day.errors == []
        await day.settled(eventually)
