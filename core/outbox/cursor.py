"""The events of a principal, read by a cursor: for readers that cannot receive, or have missed something."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from core.database import queries
from core.outbox.signing import message_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database

_sql = queries(__name__)

MAX_PAGE: Final = 500
# Positions that one call looks through, so that a call for a rare type reads no whole history.
WINDOW: Final = 10_000


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `id` is the `webhook-id` that a receiver sees; `data` is the same as in a delivery's body."""

    position: int
    id: str
    type: str
    created_at: datetime
    data: msgspec.Raw


class Page(NamedTuple):
    """Events in order; `next` is the position to go on from, `head` that of the last event there is."""

    events: list[Event]
    next: int
    head: int


class _Body(msgspec.Struct):
    data: msgspec.Raw


_body = msgspec.json.Decoder(_Body)


async def read_events(
    database: Database, *, principal_id: int, after: int, types: Sequence[str], limit: int
) -> Page:
    """Return up to `limit` events behind position `after`, of the types or patterns given (none: all).

    Positions count from 1 and become visible in their order, so a reader that keeps `next` misses nothing. An empty
    page may move `next` on, when none of the events that it covers has a wanted type.
    """
    head: int = await database.fetchval(_sql.events_head, principal_id) or 0
    if head <= after:
        return Page([], after, head)
    until = min(head, after + WINDOW)
    rows = await database.fetch(_sql.read_events, principal_id, after, until, list(types), limit)
    events = [
        Event(
            position=row["position"],
            id=message_id(row["id"]),
            type=row["event_type"],
            created_at=row["created_at"],
            data=_body.decode(row["body"]).data,
        )
        for row in rows
    ]
    return Page(events, events[-1].position if len(events) == limit else until, head)
