"""The jobs of payments: providers are asked about what is open, and what has gone on for too long is given up.

Neither closes anything by itself. A time that is over is a wish; the provider is asked to let nobody pay any more, and
its answer closes the payment, or tells that it was paid.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from core.database import queries
from core.errors import Refusal
from core.payments import refunds
from core.payments.looking import LEASE_SECONDS
from core.payments.states import Seen
from core.payments.writing import Report
from core.work.progress import Progress

if TYPE_CHECKING:
    from uuid import UUID

    from core.payments.flow import Payments

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# Looks at one provider in one step: a slow one then holds up a step for a few of its own answers.
BUDGET: Final = 20
# Calls of one provider under way at once, as every provider limits them.
AT_ONCE: Final = 4
EXPIRE_BATCH: Final = 100


async def reconcile(payments: Payments, *, budget: int = BUDGET) -> Progress:
    """Look at attempts that are due, for each provider up to `budget`, those that have waited longest first.

    An attempt that fails is looked at again after its lease, and holds up no other.
    """
    parts = await asyncio.gather(
        refunds.step(payments), *(_reconcile(payments, name, budget) for name in payments.providers)
    )
    return Progress(sum(one.done for one in parts), sum(one.failed for one in parts))


async def _reconcile(payments: Payments, provider: str, budget: int) -> Progress:
    claimed = await payments.database.fetch(_sql.claim_attempts, provider, budget, LEASE_SECONDS)
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(payment_id: UUID, attempt_id: UUID) -> bool:
        async with slots:
            try:
                await payments.look_at(payment_id, attempt_id, "reconcile")
            except Refusal as refusal:
                _log.warning("payments.look_failed", attempt=str(attempt_id), code=refusal.code)
                return False
            except Exception:  # noqa: BLE001 - a fault in one attempt leaves the others alone
                _log.exception("payments.look_failed", attempt=str(attempt_id))
                return False
            return True

    done = await asyncio.gather(*(look(row["payment_id"], row["id"]) for row in claimed))
    return Progress(done.count(True), done.count(False))


async def expire(payments: Payments) -> Progress:
    """Give up to 100 payments up whose time is over; `reconcile` then asks their providers."""
    due = await payments.database.fetch(_sql.payments_to_expire, EXPIRE_BATCH)
    done = failed = 0
    for row in due:
        try:
            await payments.applier.apply(row["id"], row["attempt_id"], Report(Seen.EXPIRE_ASKED, "expire"))
            done += 1
        except Refusal as refusal:
            _log.warning("payments.expire_failed", payment=str(row["id"]), code=refusal.code)
            failed += 1
    return Progress(done, failed)
