"""The database of a command that needs no other part of the service."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Database

Result = TypeVar("Result")


def with_database(work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do `work` with the database that the settings name or that runs here, and return its result.

    The connection has the login role of the address and not the serving role, which has fewer rights than operators
    need. Raises StartError when the database cannot be reached, and any error of `work`.
    """
    from core.database import open_database
    from core.log import configure_logging
    from ops.reach import reaching_database
    from ops.state import operator_settings

    settings = operator_settings(redis_needed=False, log_level="warning")
    # Standard output is for the result.
    configure_logging(settings, sys.stderr.buffer)

    async def run() -> Result:
        database = await open_database(settings, role=None, size=1)
        try:
            return await work(database)
        finally:
            await database.close()

    with reaching_database(settings.database_url):
        return asyncio.run(run())
