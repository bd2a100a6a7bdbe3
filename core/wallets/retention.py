"""What is removed when its time is over: old audit records, if AUDIT_RETENTION_DAYS says so, and ended sign-ins.

Everything else stays: entries, transfers and their keys for ever, and payables with their codes, so that a code that
was paid years ago is still told from one that never was.
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
    """Do one step of `prune`, as AUDIT_RETENTION_DAYS says."""
    return Progress(await prune(platform.database, platform.settings.audit_retention_days))


async def prune(database: Database, audit_days: int) -> int:
    """Remove a bounded number of old rows and return how many: 0 when there is nothing left to remove.

    Audit records stay for `audit_days`, at least LEAST_AUDIT_DAYS; 0: for ever. Sign-ins go a day after their end.
    """
    removed: int = await database.execute(_sql.prune_sessions, BATCH)
    if audit_days:
        removed += await database.fetchval(_sql.prune_audit_events, max(audit_days, LEAST_AUDIT_DAYS), BATCH)
    return removed
