"""Fan-out: one event becomes one delivery for each endpoint that wants it.

Fan-out is a step of its own after the commit, and not part of the money transaction: that one must not grow with the
number of a merchant's endpoints nor wait for them. Nothing is lost in between: an index finds every event without its
mark, and the mark and the deliveries are one transaction.

The same step numbers the events of each principal, for those who read them instead of receiving them. Ids would not do:
an id is drawn before the commit, and an event that is committed late would lie behind a reader's cursor for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from core import ids
from core.database import queries
from core.outbox.ordering import release, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection, Database

_sql = queries(__name__)

# Events of one step. With a handful of endpoints each, the transaction stays under about 20 ms.
BATCH: Final = 200
COLUMNS: Final = ("id", "principal_id", "event_type", "object_id", "created_at")


class NewDelivery(NamedTuple):
    """A delivery to make: one to a `disabled` endpoint fails at once, one with `ordered_object` waits for its turn."""

    event_id: UUID
    endpoint_id: UUID
    disabled: bool = False
    ordered_object: str | None = None


async def create_deliveries(connection: Connection, new: Sequence[NewDelivery]) -> list[UUID]:
    """Write deliveries in the caller's transaction; return their ids."""
    delivery_ids = [ids.new_uuid() for _ in new]
    columns = [[one[place] for one in new] for place in range(len(NewDelivery._fields))]
    await connection.execute(_sql.create_deliveries, delivery_ids, *columns)
    return delivery_ids


async def fan_out(database: Database, *, limit: int = BATCH) -> int:
    """Create the deliveries of up to `limit` committed events and return how many events that were."""
    async with database.transaction() as connection:
        events = await connection.fetch(_sql.take_events_to_fan_out, limit)
        if not events:
            return 0
        columns = [[event[name] for event in events] for name in COLUMNS]
        wanted = await connection.fetch(_sql.endpoints_for_events, *columns)
        await create_deliveries(
            connection,
            [
                NewDelivery(row["event_id"], row["endpoint_id"], row["disabled"], row["ordered_object"])
                for row in wanted
            ],
        )
        # The mark comes last, since other steps with events of the same principals wait for the commit from then on.
        await connection.execute(_sql.mark_fanned_out, columns[0], columns[1])
    # The release comes after the commit: only then does every process see which events have their deliveries.
    await release(database, turns_of(wanted))
    return len(events)
