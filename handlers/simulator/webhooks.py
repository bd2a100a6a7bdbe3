"""The simulator's webhooks: signed by Standard Webhooks, and doubled, dropped or late where a fault says so."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from core.errors import Refusal
from core.ids import new_uuid
from core.outbox.signing import Signer
from core.providers.calling import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(__name__)

# The pauses before a further attempt at a receiver that does not take the event: together as long as a restart.
PAUSES_SECONDS: Final = (0.1, 0.5, 2.0)
# Events under way; beyond them the simulator drops, as a provider in trouble would.
MOST_WAITING: Final = 10_000
AT_ONCE: Final = 16


class Webhooks:
    """The sender of one simulator. Without a URL it sends nothing."""

    def __init__(self, url: str, secret: str) -> None:
        self._caller = Caller("the receiver", url) if url else None
        self._signer = Signer([secret]) if secret else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: deque[tuple[str, str, bytes]] = deque()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.sent = 0

    def send(self, event_type: str, fields: Mapping[str, Any], words: Mapping[str, str]) -> None:
        """Send an event, as often and as late as the `words` of faults say."""
        if self._caller is None or "drop" in words or len(self._tasks) >= MOST_WAITING:
            return
        identity = f"evt_{new_uuid().hex}"
        body = msgspec.json.encode({"id": identity, "type": event_type, "timestamp": time.time(), **fields})
        event = (identity, event_type, body)
        if "late" in words:
            self._late.append(event)
            return
        for _ in range(2 if "twice" in words else 1):
            self._start(event)
        self.release()

    def release(self) -> None:
        """Send the events that were held back, the last one first."""
        while self._late:
            self._start(self._late.pop())

    async def settle(self) -> None:
        """Wait until nothing is under way, late events aside."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Give up all events and close connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._caller is not None:
            await self._caller.close()

    def _start(self, event: tuple[str, str, bytes]) -> None:
        task = asyncio.create_task(self._deliver(*event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, identity: str, event_type: str, body: bytes) -> None:
        for pause in (*PAUSES_SECONDS, None):
            if await self._tried(identity, event_type, body):
                self.sent += 1
                return
            if pause is not None:
                await asyncio.sleep(pause)
        log.warning("simulator.webhook_given_up", event_id=identity, event_type=event_type)

    async def _tried(self, identity: str, event_type: str, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        if self._signer is not None:
            headers = self._signer.headers(
                identity=identity,
                event_type=event_type,
                delivery_id=new_uuid(),
                body=body,
                timestamp=int(time.time()),
            )
        assert self._caller is not None  # noqa: S101 - `send` has asked
        async with self._slots:
            try:
                return (await self._caller.call("POST", "", headers=headers, body=body)).good
            except Refusal:
                return False
