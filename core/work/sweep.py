"""The backlog: how much waits in the inbox and the outbox, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.database import queries

if TYPE_CHECKING:
    from core.database import Database

_sql = queries(__name__)


class Backlog(NamedTuple):
    """Rows that are due, dead letters, events without their deliveries; ages in seconds, 0.0 where nothing waits."""

    inbox_due: int
    inbox_oldest_seconds: float
    inbox_dead: int
    outbox_events: int
    deliveries_due: int
    outbox_oldest_seconds: float


async def read_backlog(database: Database) -> Backlog:
    """Return the backlog of now."""
    inbox = await database.fetchrow(_sql.inbox_backlog)
    outbox = await database.fetchrow(_sql.outbox_backlog)
    if inbox is None or outbox is None:
        raise LookupError("a count has a row")
    return Backlog(
        inbox["due"],
        round(inbox["oldest_seconds"], 1),
        inbox["dead"],
        outbox["events"],
        outbox["deliveries"],
        round(outbox["oldest_seconds"] or 0.0, 1),
    )
