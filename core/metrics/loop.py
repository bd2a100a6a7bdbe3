"""The lag of the event loop: one callback that takes long holds up every request of its process."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from core.metrics import LOOP_LAG

# Often enough that a loop which hangs for a while is seen, and too seldom to cost anything.
EVERY_SECONDS: Final = 1.0


async def watch_loop() -> None:
    """Observe once a second, until cancelled, by how much a timer rings late."""
    while True:
        due = time.perf_counter() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        LOOP_LAG.observe(max(0.0, time.perf_counter() - due))
