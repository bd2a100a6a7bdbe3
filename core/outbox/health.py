"""The health of receivers in the long run: since when one has only failed, and when it is switched off for that.

PostgreSQL keeps it, so that all workers add to it and the owner sees it. A receiver that is well costs no write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from core.database import queries
from core.outbox.endpoints import FAILING, GONE, switch
from core.outbox.events import new_event, write_events

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Database, Row
    from core.settings import Settings

log = structlog.get_logger(__name__)
_sql = queries(__name__)

DISABLED_EVENT: Final = "webhook_endpoint.disabled"
# A span without a success says little when it held one or two attempts only.
LEAST_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds at which an endpoint is switched off: deliveries given up in a row, or seconds without a success.

    A bound of 0 means never.
    """

    deliveries: int
    span_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        """Read the patience from WEBHOOK_DISABLE_AFTER_FAILS and WEBHOOK_DISABLE_AFTER_HOURS."""
        return cls(settings.webhook_disable_after_fails, settings.webhook_disable_after_hours * 3600.0)

    def ends(self, row: Row) -> bool:
        """Say whether the failures that `row` counts are enough."""
        if 0 < self.deliveries <= row["failed_deliveries"]:
            return True
        attempted: bool = row["failed_attempts"] >= LEAST_ATTEMPTS
        return attempted and 0 < self.span_seconds <= row["failing_seconds"]


async def note_success(database: Database, endpoint_id: UUID) -> None:
    """End a series of failures."""
    await database.execute(_sql.note_endpoint_success, endpoint_id)


async def note_failure(
    database: Database, patience: Patience, endpoint_id: UUID, *, given_up: bool, gone: bool
) -> bool:
    """Count a failed attempt, and return whether the endpoint was switched off for it.

    A delivery that is `given_up` will not be tried again; a receiver that is `gone` has answered 410. The event that
    tells the endpoint's owner is written in the same transaction and goes to the owner's other endpoints.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(_sql.count_endpoint_failure, endpoint_id, int(given_up))
        if row is None or not (gone or patience.ends(row)):
            return False
        reason = GONE if gone else FAILING
        disabled = await switch(connection, endpoint_id, reason)
        data = {
            "id": str(endpoint_id),
            "url": disabled.url,
            "reason": reason,
            "failing_since": row["failing_since"].isoformat(),
            "disabled_at": disabled.disabled_at.isoformat() if disabled.disabled_at else None,
        }
        event = new_event(row["principal_id"], DISABLED_EVENT, data, object_id=str(endpoint_id))
        await write_events(connection, [event])
    log.warning("endpoint.disabled", endpoint_id=str(endpoint_id), reason=reason)
    return True
