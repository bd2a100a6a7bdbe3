"""The lag of an event loop: how long it waited for its turn at most. A starved harness sees faults that are its own."""

import asyncio
import time

TICK_SECONDS = 0.1


class Lag:
    """Measures the loop that it runs on."""

    longest = 0.0
    """The longest wait so far, in seconds."""

    async def measure(self) -> None:
        """Sleep again and again, and note by how much each sleep was too long."""
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.longest = max(self.longest, time.monotonic() - due)
