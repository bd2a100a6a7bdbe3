"""What the log says while PostgreSQL is away: the service's own lines, and no traceback of the driver's pool."""

import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.database import Query, open_database
from core.errors import Unavailable
from core.log import configure_logging
from core.settings import Settings
from ops.embedded import EmbeddedServers

Wait = Callable[..., Awaitable[Any]]

ONE = Query("one", "SELECT 1")


@pytest.fixture
def stream(settings: Settings, logging_as_before: None) -> io.BytesIO:
    written = io.BytesIO()
    configure_logging(settings, written)
    return written


async def test_the_pools_attempts_in_vain_leave_no_traceback(
    settings: Settings, servers: EmbeddedServers, stream: io.BytesIO, eventually: Wait
) -> None:
    database = await open_database(settings)
    attempts = 0

    async def lost() -> bool:
        nonlocal attempts
        try:
            # The process that serves the connection outlives the killed server for a moment, and may answer once more.
            await database.fetchval(ONE)
        except Unavailable:
            attempts += 1
        return attempts > 2

    try:
        assert await database.fetchval(ONE) == 1
        servers.postgres.kill()
        await eventually(lost)
        servers.postgres.start()
        # The pool's own attempt succeeds now, without a call of ours.
        await eventually(lambda: database.connections.pool.get_size() > 0)
        assert await database.fetchval(ONE) == 1
    finally:
        servers.postgres.start()
        await database.close()
    loud = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line for line in loud if line["logger"].startswith("asyncpg")] == []
