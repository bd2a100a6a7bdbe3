"""The sequencer: numbers what has committed and seals it, so that the feed is dense, ordered and tamper-evident."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.database import queries

if TYPE_CHECKING:
    from core.database import Database

SQL = queries(__name__)
# One round's transaction stays within tens of milliseconds: sealing costs about 10 us an entry.
ROUND_BATCHES: Final = 200


async def seal_once(database: Database) -> int:
    """Number and seal up to 200 batches and return how many; 0 when nothing waits, or another process is at it."""
    sealed: int = await database.fetchval(SQL.seal, ROUND_BATCHES)
    return sealed


async def feed_lag_seconds(database: Database) -> float:
    """Return the age in seconds of the oldest batch that is not in the feed yet."""
    lag: float = await database.fetchval(SQL.feed_lag)
    return lag
