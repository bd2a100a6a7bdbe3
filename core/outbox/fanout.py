"""From an event to one delivery for each endpoint that wants it.

This is a step of its own after the commit, and not part of the money transaction: that one must not grow with the
number of a merchant's endpoints nor wait for them. Nothing can be lost in between, as an event without its mark is
found by its index, and the mark and the deliveries are one transaction.

The same step numbers the events of each principal, for those who read them instead of receiving them. Ids would not do:
they are drawn before the commit, and what is committed late would lie behind a reader's cursor for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import ids
from core.database import statements
from core.outbox.ordering import release, turns_of

if TYPE_CHECKING:
    from core.database import Database

_sql = statements("outbox")

# Events of one step. With a handful of endpoints each, the transaction stays under about 20 ms.
BATCH: Final = 200
COLUMNS: Final = ("id", "principal_id", "event_type", "object_id", "created_at")


async def fan_out(database: Database, *, limit: int = BATCH) -> int:
    """Create the deliveries of up to `limit` committed events and return how many events that were."""
    async with database.transaction() as connection:
        events = await connection.fetch(_sql.take_events_to_fan_out, limit)
        if not events:
            return 0
        columns = [[event[name] for event in events] for name in COLUMNS]
        wanted = await connection.fetch(_sql.endpoints_for_events, *columns)
        await connection.execute(
            _sql.create_deliveries,
            [ids.new_uuid() for _ in wanted],
            [row["event_id"] for row in wanted],
            [row["endpoint_id"] for row in wanted],
            [row["disabled"] for row in wanted],
            [row["ordered_object"] for row in wanted],
        )
        # Last, since it makes other steps with events of the same principals wait for the commit.
        await connection.execute(_sql.mark_fanned_out, columns[0], columns[1])
    # Not before the commit: only then does everybody see which events have their deliveries.
    await release(database, turns_of(wanted))
    return len(events)
