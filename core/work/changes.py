"""Changes that are more than one posting: a transaction with the posting in it, repeated where a twin was quicker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from core.errors import Unavailable
from core.ledger.poster import KEY_TAKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Connection, Database

Result = TypeVar("Result")

# A twin that took a key first has committed by the second try; a third is for a twin of another kind.
MAX_TRIES: Final = 3


async def change(database: Database, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Run `work` in a transaction; again, a bounded number of times, when somebody took one of its keys meanwhile.

    Raises what `work` raises, Unavailable `busy` when the keys stay contended.
    """
    for _ in range(MAX_TRIES):
        try:
            async with database.transaction() as connection:
                return await work(connection)
        except asyncpg.PostgresError as error:
            if error.sqlstate != KEY_TAKEN:
                raise
    raise Unavailable(
        "The rows of this call are busy at the moment. Repeat the call.", code="busy", retry_after=0.1
    )
