"""Tries at what is due: when the next one comes, and which failures are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import asyncpg

from core.errors import Refusal, Unavailable
from core.ledger.poster import KEY_TAKEN
from core.work.backoff import half_jitter

Result = TypeVar("Result")

# A transaction that met another's batch is rolled back as a whole, and finds its way at the next try or the one after.
MAX_TRIES: Final = 4
FIRST_RETRY_SECONDS: Final = 900.0
LAST_RETRY_SECONDS: Final = 86_400.0


class Postponed(Exception):
    """The rows are busy beyond our patience, or somebody else has this in hand."""


def retry_in(attempts: int) -> timedelta:
    """Return how long to wait after so many failures of the same thing: a quarter of an hour, doubling, up to a day."""
    return timedelta(
        seconds=half_jitter(attempts, base_seconds=FIRST_RETRY_SECONDS, cap_seconds=LAST_RETRY_SECONDS)
    )


async def attempt(transaction: Callable[[], Awaitable[Result]]) -> Result:
    """Run a transaction, again where it was rolled back for having met another. Raises Postponed after four times."""
    for tried in range(MAX_TRIES):
        try:
            return await transaction()
        except asyncpg.PostgresError as error:
            if error.sqlstate != KEY_TAKEN:
                raise
        except Unavailable as error:
            if error.code != "busy":
                raise
        await asyncio.sleep(random.uniform(0, 0.005 * 2**tried))  # noqa: S311 - jitter, no secret
    raise Postponed


def reason_of(error: Exception) -> Refusal:
    """Return what a failure is called: a refusal as it is, anything else is a fault of ours."""
    return (
        error
        if isinstance(error, Refusal)
        else Refusal("internal_error", "Something went wrong on our side.")
    )
