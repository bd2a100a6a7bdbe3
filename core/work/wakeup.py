"""Wake-ups: telling the workers that due work was committed, without making anybody wait for it.

Work lies in PostgreSQL and is polled for there; a wake-up only makes it happen sooner. So a wake-up is best effort:
sent after the commit, coalesced, never awaited, and lost when Redis is gone. Pub/sub carries it rather than a list, so
that every worker hears it: claims skip rows that another has locked, and a worker that died takes no wake-up with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog
from redis.exceptions import RedisError

from core import ids
from core.redis import FAILURES, Line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

log = structlog.get_logger(__name__)

# Topics that a loop can wait for. A topic names work, not its cause.
INBOX: Final = "inbox"
OUTBOX: Final = "outbox"
DELIVERIES: Final = "deliveries"
TOPICS: Final = (INBOX, OUTBOX, DELIVERIES)

# A message that Redis has not taken by then is lost.
SEND_SECONDS: Final = 0.25
# The wait between two tries to reach Redis. Polling covers the gap.
RECONNECT_SECONDS: Final = 1.0
# How long one read waits for a message before the loop looks at its connection again.
LISTEN_SECONDS: Final = 5.0


# A message names its sender behind this, which no topic begins with.
_FROM: Final = "from:"


def _channel(epoch: str) -> str:
    return f"ts:{epoch}:wake"


class Waker:
    """The sending side. At most one message is under way; topics that are woken meanwhile go with the next one.

    `alarm` is that of the same process, if it has one: it rings at once, and does not hear the message again.
    """

    def __init__(self, redis: Redis, epoch: str, alarm: Alarm | None = None) -> None:
        self._line = Line(redis)
        self._channel = _channel(epoch)
        self.alarm = alarm
        self._due: set[str] = set()
        self._sender: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self, topic: str) -> None:
        """Tell all workers that there is work of `topic`. Returns at once and never fails."""
        if self.alarm is not None:
            self.alarm.ring([topic])
        self._due.add(topic)
        if self._sender is None and not self._closed:
            self._sender = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Wait for the message that is under way, and end the connection: nothing is sent after that."""
        self._closed = True
        if self._sender is not None:
            await self._sender
        await self._line.close()

    async def _send(self) -> None:
        try:
            while self._due:
                origin = () if self.alarm is None else (_FROM + self.alarm.name,)
                message = " ".join((*sorted(self._due), *origin))
                self._due.clear()
                # A lost wake-up costs one poll interval, so there is no second try and no line in the log for each.
                try:
                    async with asyncio.timeout(SEND_SECONDS):
                        await self._line.ask(("PUBLISH", self._channel, message))
                except FAILURES:
                    await self._line.drop()
        finally:
            self._sender = None


class Alarm:
    """The receiving side: one event per topic, set by messages, by this process itself, or by nobody until the poll."""

    def __init__(self, redis: Redis, epoch: str) -> None:
        self._redis = redis
        self._channel = _channel(epoch)
        self.name = ids.new_uuid().hex
        self._events = {topic: asyncio.Event() for topic in TOPICS}

    def ring(self, topics: Iterable[str] = TOPICS) -> None:
        """Wake the loops of this process."""
        for topic in topics:
            if topic in self._events:
                self._events[topic].set()

    async def wait(self, topic: str, timeout_seconds: float) -> bool:
        """Wait until `topic` was woken since the last call, or for the time given; say whether it was woken."""
        event = self._events[topic]
        if not event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await event.wait()
        woken = event.is_set()
        event.clear()
        return woken

    async def listen(self) -> None:
        """Turn messages into events until cancelled. Redis may come and go meanwhile."""
        reachable = True
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(self._channel)
                    if not reachable:
                        log.info("wakeup.restored")
                    reachable = True
                    # Work that was committed while nobody listened has to be found now.
                    self.ring()
                    await self._hear(channel)
            except (RedisError, OSError, TimeoutError) as error:
                if reachable:
                    log.warning("wakeup.lost", error=type(error).__name__)
                reachable = False
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear(self, channel: PubSub) -> None:
        while True:
            message = await channel.get_message(timeout=LISTEN_SECONDS)
            if message is not None:
                words = message["data"].decode("utf-8", "replace").split()
                if _FROM + self.name not in words:
                    self.ring(words)
