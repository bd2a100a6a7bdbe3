"""Ending tasks, so that a stop ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# How long a cancelled task may take over its clean-up before it is cancelled again.
AGAIN_SECONDS: Final = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and return when all have ended, however they end.

    Once is not enough: an error in the clean-up of what was cancelled (the connection it gives back is dead) takes the
    cancellation's place, a loop that outlives errors takes that for one of them, and who waits for it waits for ever.
    """
    left: Collection[asyncio.Task[Any]] = tasks
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
