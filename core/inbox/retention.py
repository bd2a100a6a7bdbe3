"""The removal of finished events that are old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from core import ids
from core.database import queries

if TYPE_CHECKING:
    from core.database import Database

_sql = queries(__name__)

# One step is a transaction of some tens of milliseconds.
BATCH: Final = 1_000
# A provider repeats an event for some days, and the row is what tells that it is known.
LEAST_DAYS: Final = 7


async def prune_events(database: Database, days: int) -> int:
    """Remove up to BATCH events that were finished more than `days` days ago; return how many. 0 days: none, ever.

    Dead letters stay. Fewer than LEAST_DAYS count as so many.
    """
    if days == 0:
        return 0
    days = max(days, LEAST_DAYS)
    before = ids.first_uuid_at(datetime.now(UTC) - timedelta(days=days))
    removed: int = await database.fetchval(_sql.prune_inbox_events, days, before, BATCH)
    return removed
