"""Another try: which failures deserve one, how often, and how long it waits.

Jitter keeps calls that failed together from coming back together.
(https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/)
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from core import metrics
from core.database import is_retriable
from core.errors import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.database import Connection, Database

Result = TypeVar("Result")

# A transaction that was rolled back for having met another finds its way at the next try or the one after. All tries
# together wait for 31 ms at most, so a caller hardly notices.
MAX_TRIES: Final = 6
FIRST_WAIT_SECONDS: Final = 0.001
LAST_WAIT_SECONDS: Final = 0.016

# A job that could not do its work tries again after a quarter of an hour, and at least once a day.
FIRST_RETRY_SECONDS: Final = 900.0
LAST_RETRY_SECONDS: Final = 86_400.0


async def repeated(transaction: Callable[[], Awaitable[Result]]) -> Result:
    """Run a transaction, and run it again where a deadlock, a serialization failure or a taken key rolled it back.

    Raises what the transaction raises. Unavailable `busy` says that none of six tries got through.
    """
    for tried in range(1, MAX_TRIES):
        try:
            return await transaction()
        except Unavailable as error:
            if not is_retriable(error.__cause__):
                raise
            metrics.TRANSACTION_RETRIES.add(type(error.__cause__).__name__)
        await asyncio.sleep(wait_seconds(tried))
    return await transaction()


async def in_transaction(database: Database, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Run `work` in a transaction of its own, as often as `repeated` allows; its effects are in the database alone."""

    async def once() -> Result:
        async with database.transaction() as connection:
            return await work(connection)

    return await repeated(once)


def wait_seconds(tried: int) -> float:
    """Return how long a transaction that failed so many times waits before it is run again: some milliseconds."""
    return full_jitter(tried, base_seconds=FIRST_WAIT_SECONDS, cap_seconds=LAST_WAIT_SECONDS)


def retry_in(attempts: int) -> timedelta:
    """Return how long a job waits after so many failures in a row: a quarter of an hour, doubled, at most a day."""
    return timedelta(
        seconds=half_jitter(attempts, base_seconds=FIRST_RETRY_SECONDS, cap_seconds=LAST_RETRY_SECONDS)
    )


def reason_of(error: Exception) -> Refusal:
    """Return the refusal that a failure is noted with: its own, or `internal_error` for a fault of ours."""
    return (
        error
        if isinstance(error, Refusal)
        else Refusal("internal_error", "Something went wrong on our side.")
    )


def full_jitter(attempt: int, *, base_seconds: float, cap_seconds: float, factor: float = 2.0) -> float:
    """Return seconds between 0 and `min(cap, base * factor ** (attempt - 1))`; `attempt` counts from 1.

    Work of our own waits so: an early try costs little there, and the spread of the load is everything.
    """
    return random.uniform(0.0, _ceiling(attempt, base_seconds, cap_seconds, factor))  # noqa: S311 - spreads load


def half_jitter(attempt: int, *, base_seconds: float, cap_seconds: float, factor: float = 2.0) -> float:
    """Return seconds between the half and the whole of the ceiling of `full_jitter`.

    Calls on others wait so: receivers are promised a schedule, and their few tries must not be burnt within a second.
    """
    ceiling = _ceiling(attempt, base_seconds, cap_seconds, factor)
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load


def _ceiling(attempt: int, base_seconds: float, cap_seconds: float, factor: float) -> float:
    # The exponent is bounded because a float overflows at about 2 ** 1024.
    return min(cap_seconds, base_seconds * factor ** min(max(attempt - 1, 0), 60))
