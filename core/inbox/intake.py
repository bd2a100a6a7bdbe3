"""Taking events in: one row each, durable before anybody is told so, and once however often they come.

Concurrent requests share a statement (`core.lane`): storing costs one commit a batch and not one an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from core import ids
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

# Bytes of one statement. About a thousand ordinary events, or four of the largest.
BATCH_BYTES: Final = 4 * 1024 * 1024
# What a row costs beside its body.
ROW_BYTES: Final = 1024
# At 5,000 events a second this is a second of waiting; a provider that gets 503 comes again.
MAX_WAITING: Final = 5_000


class Receipt(NamedTuple):
    """One verified event as it came.

    `headers` are those needed to verify `body` again; `occurred_at` is the provider's clock.
    """

    provider: str
    event_id: str
    event_type: str
    object_id: str | None
    occurred_at: datetime | None
    headers: Mapping[str, str]
    body: bytes


class Intake:
    """The intake of one process."""

    def __init__(self, database: Database, waker: Waker) -> None:
        self._database = database
        self._waker = waker
        self._lane: Lane[Receipt, bool] = Lane(
            self._store,
            max_batch=BATCH_BYTES,
            max_waiting=MAX_WAITING,
            weigh=lambda receipt: len(receipt.body) + ROW_BYTES,
        )

    async def receive(self, receipt: Receipt) -> bool:
        """Store an event and say whether it is new; return once it is durable, whoever stored it.

        Raises Unavailable when it cannot be known that it is, and Refusal `overloaded`; the sender has to come again.
        """
        return await self._lane.submit(receipt)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._lane.close()

    async def _store(self, receipts: Sequence[Receipt]) -> list[bool | BaseException]:
        try:
            stored: list[bool | BaseException] = list(await self._insert(receipts))
        except Unavailable:
            raise
        except Exception as error:
            if len(receipts) == 1:
                raise
            # Something in one of them is more than PostgreSQL takes. The others must not fail with it.
            log.warning("inbox.batch_split", events=len(receipts), error=str(error))
            stored = [await self._insert_alone(receipt) for receipt in receipts]
        if True in stored:
            self._waker.wake(wakeup.INBOX)
        return stored

    async def _insert_alone(self, receipt: Receipt) -> bool | BaseException:
        try:
            return (await self._insert([receipt]))[0]
        except Exception as error:  # noqa: BLE001 - it is handed to the one request it belongs to
            return error

    async def _insert(self, receipts: Sequence[Receipt]) -> list[bool]:
        new_ids = [ids.new_uuid() for _ in receipts]
        rows = await self._database.fetch(
            _sql.store_inbox_events,
            new_ids,
            [receipt.provider for receipt in receipts],
            [receipt.event_id for receipt in receipts],
            [receipt.event_type for receipt in receipts],
            [receipt.object_id for receipt in receipts],
            [receipt.occurred_at for receipt in receipts],
            [msgspec.json.encode(receipt.headers).decode() for receipt in receipts],
            [receipt.body for receipt in receipts],
        )
        stored = {row["id"] for row in rows}
        return [new_id in stored for new_id in new_ids]
