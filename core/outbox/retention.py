"""The removal of what is old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.database import queries

if TYPE_CHECKING:
    from core.database import Database

_sql = queries(__name__)

PRUNE_BATCH: Final = 5_000


async def prune_attempts(database: Database, days: int) -> int:
    """Remove attempts that are older than `days`, up to PRUNE_BATCH of them; return how many that was."""
    return await database.execute(_sql.prune_attempts, days, PRUNE_BATCH)
