"""The end of tasks, so that a process that stops does end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# A cancelled task may take so long over its clean-up before it is cancelled again.
AGAIN_SECONDS: Final = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and return when all have ended, however they end.

    One cancellation is not enough. An error in the clean-up (the connection that it gives back is dead) takes the
    cancellation's place, and a loop that outlives errors goes on; its waiter would wait for ever.
    """
    left: Collection[asyncio.Task[Any]] = tasks
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
