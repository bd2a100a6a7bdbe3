"""Taking events in: each is stored as one row before it is acknowledged, and once however often it comes.

Concurrent requests share a statement (`core.lane`), so storing costs one commit a batch and not one an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from core import ids, tracing
from core.arrays import texts, texts_or_nulls, uuids
from core.database import queries
from core.errors import Unavailable
from core.lane import Lane
from core.work import wakeup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from core.database import Database
    from core.work.wakeup import Waker

log = structlog.get_logger(__name__)
_sql = queries(__name__)

# One statement carries so many bytes: about a thousand ordinary events, or four of the largest.
BATCH_BYTES: Final = 4 * 1024 * 1024
# A row costs about so much beside its body.
ROW_BYTES: Final = 1024
# At 5,000 events a second the last one waits a second; a provider that gets 503 comes again.
MAX_WAITING: Final = 5_000


class NewEvent(NamedTuple):
    """One verified event that is to be stored.

    `headers` are those needed to verify `body` again; `occurred_at` is by the provider's clock. `traceparent` is that
    of the request that brought it, where traces are made.
    """

    provider: str
    event_id: str
    event_type: str
    object_id: str | None
    occurred_at: datetime | None
    headers: Mapping[str, str]
    body: bytes
    traceparent: str | None = None


class Intake:
    """The part of one process that stores events, through a lane of its own."""

    def __init__(self, database: Database, waker: Waker) -> None:
        self._database = database
        self._waker = waker
        self._lane: Lane[NewEvent, bool] = Lane(
            self._store,
            max_batch=BATCH_BYTES,
            max_waiting=MAX_WAITING,
            weigh=lambda event: len(event.body) + ROW_BYTES,
            # Events that have arrived together are stored together: the guard lets each through by itself.
            patience=0,
            name="inbox.store",
        )

    async def receive(self, event: NewEvent) -> bool:
        """Store an event and return whether it is new; it is durable then, also when a twin has stored it.

        Raises Unavailable when its fate is unknown, and Refusal `overloaded`; the sender has to come again.
        """
        if tracing.active is not None:
            event = event._replace(traceparent=tracing.active.current())
        return await self._lane.enqueue(event)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._lane.close()

    async def _store(self, events: Sequence[NewEvent]) -> list[bool | BaseException]:
        try:
            stored: list[bool | BaseException] = list(await self._insert(events))
        except Unavailable:
            raise
        except Exception as error:
            if len(events) == 1:
                raise
            # PostgreSQL refuses something in one of the events. The others must not fail with it.
            log.warning("inbox.batch_split", events=len(events), error=str(error))
            stored = [await self._insert_alone(event) for event in events]
        if True in stored:
            self._waker.wake(wakeup.INBOX)
        return stored

    async def _insert_alone(self, event: NewEvent) -> bool | BaseException:
        try:
            return (await self._insert([event]))[0]
        except Exception as error:  # noqa: BLE001 - it is handed to the one request it belongs to
            return error

    async def _insert(self, events: Sequence[NewEvent]) -> list[bool]:
        new_ids = [ids.new_row_id() for _ in events]
        if tracing.active is not None:
            for new_id, event in zip(new_ids, events, strict=True):
                tracing.active.note(new_id, event.traceparent)
            await tracing.active.keep_noted()
        rows = await self._database.fetch(
            _sql.store_inbox_events,
            uuids(new_ids),
            texts([event.provider for event in events]),
            texts([event.event_id for event in events]),
            texts([event.event_type for event in events]),
            texts_or_nulls([event.object_id for event in events]),
            [event.occurred_at for event in events],
            [msgspec.json.encode(event.headers).decode() for event in events],
            [event.body for event in events],
        )
        stored = {row["id"] for row in rows}
        return [new_id in stored for new_id in new_ids]
