"""The events of a principal, read by a cursor: for readers that cannot receive, or have missed something."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from core.database import queries
from core.errors import Refusal
from core.ledger import history
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
    page may move `next` on, when none of the events that it covers has a wanted type. With `after` 0 a reader begins
    with the oldest event that is kept. Raises Refusal `events_removed` when events behind a later one are not kept any
    more: it tells the `earliest` position that is.
    """
    head, earliest = await _ends(database, principal_id)
    begin = after or earliest - 1
    if head <= begin:
        return Page([], after, head)
    until = min(head, begin + WINDOW)
    rows = await database.fetch(_sql.read_events, principal_id, begin, until, list(types), limit)
    # Events may have been removed since the first look, just before they were read.
    _, earliest = await _ends(database, principal_id)
    if begin < earliest - 1:
        if after:
            raise Refusal(
                "events_removed",
                f"The events behind position {after} are not kept any more, up to position {earliest - 1}."
                f" Go on from there if you can do without them.",
                earliest=earliest,
            )
        return await read_events(database, principal_id=principal_id, after=0, types=types, limit=limit)
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


async def check_reader(
    database: Database, present: str, named: str | None, *, principal_id: int, after: int
) -> None:
    """Raise Refusal `epoch_changed` for a reader who has read events that a restore has taken back.

    The reader names the epoch of its last page, or none; `present` is the epoch of the database.
    """
    if named == present:
        return
    head, _ = await _ends(database, principal_id)
    parted = await history.parted_at(database, present, named, ahead=after > head)
    if parted is not None:
        shared: int = await database.fetchval(_sql.shared_position, principal_id, parted)
        history.expect_shared(present, after, shared)


async def _ends(database: Database, principal_id: int) -> tuple[int, int]:
    """Return the position of the last event, 0 if there is none, and that of the first one that is kept."""
    row = await database.fetchrow(_sql.events_head, principal_id)
    return (0, 1) if row is None else (row["last_position"], row["first_position"])
