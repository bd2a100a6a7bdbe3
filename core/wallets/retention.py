"""The removal of old rows: audit records, where AUDIT_RETENTION_DAYS is set, and ended sign-ins.

Audit records go as whole months (`core.partitions.keeping`); those removed here stand outside such a partition.

Entries, transfers and their keys stay for ever. Payables stay with their codes, so that a code that was paid years ago
is still known as paid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.database import queries
from core.work.progress import Progress

if TYPE_CHECKING:
    from core.database import Database
    from core.platform import Platform

_sql = queries(__name__)

# One step is a transaction of some tens of milliseconds.
BATCH: Final = 1_000
# The database removes nothing from the audit that is younger.
LEAST_AUDIT_DAYS: Final = 30


async def step(platform: Platform) -> Progress:
    """Do one step of `prune` with AUDIT_RETENTION_DAYS."""
    settings = platform.settings
    # Nothing goes before it is in the archive.
    days = 0 if settings.archive_url else settings.audit_retention_days
    return Progress(await prune(platform.database, days))


async def prune(database: Database, audit_days: int) -> int:
    """Remove up to BATCH old sign-ins and as many audit records; return the number removed, 0 when none is left.

    Audit records stay for `audit_days`, at least LEAST_AUDIT_DAYS (0: for ever), sign-ins for a day after their end.
    """
    removed: int = await database.execute(_sql.prune_sessions, BATCH)
    if audit_days:
        removed += await database.fetchval(_sql.prune_audit_events, max(audit_days, LEAST_AUDIT_DAYS), BATCH)
    return removed
