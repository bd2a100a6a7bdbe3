"""The backfill asks providers, once an hour, for the events that they could not deliver to us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from core.errors import Refusal
from core.inbox.backfill import Fetched, backfill_paypal, backfill_stripe
from core.inbox.intake import Intake

if TYPE_CHECKING:
    from core.database import Database
    from core.settings import Settings
    from core.work.wakeup import Waker

log = structlog.get_logger(__name__)


class Fetch(Protocol):
    """A function that asks one provider."""

    __name__: str

    async def __call__(self, settings: Settings, intake: Intake, since: datetime, /) -> Fetched:
        """Take in the events that were missed since then."""


def askable(settings: Settings) -> list[Fetch]:
    """Return the functions for providers that we have credentials for; none when the operator wants no backfill."""
    if settings.inbox_backfill_hours == 0:
        return []
    paypal = (
        settings.paypal_client_id and settings.paypal_client_secret and settings.paypal_mode != "demo_hmac"
    )
    return [
        *([backfill_stripe] if settings.stripe_secret_key else []),
        *([backfill_paypal] if paypal else []),
    ]


async def backfill(settings: Settings, database: Database, waker: Waker) -> int:
    """Fetch the events missed within INBOX_BACKFILL_HOURS; return 0, for one run asks for all of them.

    A provider that is away is asked again at the next run.
    """
    intake = Intake(database, waker)
    since = datetime.now(UTC) - timedelta(hours=settings.inbox_backfill_hours)
    try:
        for fetch in askable(settings):
            try:
                await fetch(settings, intake, since)
            except Refusal as refusal:
                log.warning("backfill.failed", job=fetch.__name__, code=refusal.code, detail=refusal.detail)
    finally:
        await intake.close()
    return 0
