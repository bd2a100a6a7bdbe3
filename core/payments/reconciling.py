"""The jobs of payments: providers are asked about what is open, and what has gone on for too long is given up.

Neither closes anything by itself. A time that is over is a wish; the provider is asked to let nobody pay any more, and
its answer closes the payment, or tells that it was paid.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from core import metrics
from core.database import queries
from core.errors import Refusal
from core.payments import refunds
from core.payments.looking import LEASE_SECONDS
from core.payments.states import Seen
from core.payments.writing import Report
from core.work.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import timedelta
    from uuid import UUID

    from core.payments.flow import Payments

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# Looks at one provider in one step: a slow one then holds up a step for a few of its own answers.
BUDGET: Final = 20
# Calls of one provider under way at once, as every provider limits them.
AT_ONCE: Final = 4
EXPIRE_BATCH: Final = 100
# The part of a step that asks about refunds; no provider has such a name.
REFUNDS: Final = "/refunds"


async def reconcile(payments: Payments, *, budget: int = BUDGET, patience: float | None = None) -> Progress:
    """Look at attempts that are due, for each provider up to `budget`, those that have waited longest first.

    An attempt that fails is looked at again after its lease, and holds up no other. After `patience` seconds the step
    ends; a provider that is slow then goes on by itself, and the next step begins without it.
    """
    under_way = payments.looks_under_way
    if REFUNDS not in under_way:
        under_way[REFUNDS] = asyncio.create_task(refunds.step(payments))
    for name in payments.providers:
        if name not in under_way:
            under_way[name] = asyncio.create_task(_reconcile(payments, name, budget))
    done, _ = await asyncio.wait(under_way.values(), timeout=patience)
    for name in [name for name, task in under_way.items() if task in done]:
        del under_way[name]
    # All ends are read before the first error is raised: an error that nobody reads is told by the loop, late and bare.
    ends = await asyncio.gather(*done, return_exceptions=True)
    failures = [end for end in ends if isinstance(end, BaseException)]
    if failures:
        raise failures[0]
    parts = [end for end in ends if isinstance(end, Progress)]
    return Progress(sum(one.done for one in parts), sum(one.failed for one in parts))


async def reconcile_all(payments: Payments, *, batch: int, stale_after: timedelta) -> Progress:
    """Look once at about `batch` attempts that are due or were not changed for so long, and ask about refunds.

    Each provider has an equal part of the batch, so that none waits behind another's.
    """
    budget = max(1, batch // max(1, len(payments.providers)))
    parts = await asyncio.gather(
        refunds.step(payments),
        *(_reconcile(payments, name, budget, stale_after.total_seconds()) for name in payments.providers),
    )
    return Progress(sum(one.done for one in parts), sum(one.failed for one in parts))


async def left_alone(payments: Payments, *, stale_after: timedelta) -> dict[str, int]:
    """Return how many attempts `reconcile_all` should look at and cannot, by the provider, which is not set up."""
    rows = await payments.database.fetch(
        _sql.attempts_elsewhere, sorted(payments.providers), stale_after.total_seconds()
    )
    return {row["provider"]: row["attempts"] for row in rows}


async def _reconcile(
    payments: Payments, provider: str, budget: int, stale_seconds: float | None = None
) -> Progress:
    query = _sql.claim_attempts if stale_seconds is None else _sql.claim_stale_attempts
    stale = () if stale_seconds is None else (stale_seconds,)
    with metrics.CLAIM_SECONDS.timed("payments"):
        claimed = await payments.database.fetch(query, provider, budget, LEASE_SECONDS, *stale)

    async def look(payment_id: UUID, attempt_id: UUID) -> bool:
        payment = await payments.look_at(payment_id, attempt_id, "reconcile")
        return payment.attempt(attempt_id).error is None

    return await _each(look, [(row["payment_id"], row["id"]) for row in claimed])


async def _each(
    look: Callable[[UUID, UUID], Awaitable[bool]], chosen: Sequence[tuple[UUID, UUID]]
) -> Progress:
    """Look at payments, a few at once; one that fails leaves the others alone."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(payment_id: UUID, attempt_id: UUID) -> bool:
        async with slots:
            try:
                return await look(payment_id, attempt_id)
            except Refusal as refusal:
                _log.warning("payments.look_failed", attempt=str(attempt_id), code=refusal.code)
                return False
            except Exception:  # noqa: BLE001 - a fault in one attempt leaves the others alone
                _log.exception("payments.look_failed", attempt=str(attempt_id))
                return False

    done = await asyncio.gather(*(one(*pair) for pair in chosen))
    return Progress(done.count(True), done.count(False))


async def expire(payments: Payments, *, batch: int = EXPIRE_BATCH) -> Progress:
    """Give up to `batch` payments up whose time is over; `reconcile` then asks their providers."""
    due = await payments.database.fetch(_sql.payments_to_expire, batch)
    done = failed = 0
    for row in due:
        try:
            await payments.applier.apply(row["id"], row["attempt_id"], Report(Seen.EXPIRE_ASKED, "expire"))
            done += 1
        except Refusal as refusal:
            _log.warning("payments.expire_failed", payment=str(row["id"]), code=refusal.code)
            failed += 1
    return Progress(done, failed)


async def expire_all(payments: Payments, *, batch: int, surface: str, age: timedelta) -> Progress:
    """Give up to `batch` payments up whose time is over, and ask their providers at once to close them.

    Those of `surface` count by their `age` too: whoever shortens the time means the payments that are open now.
    """
    due = await payments.database.fetch(_sql.payments_to_expire_by_age, batch, surface, age.total_seconds())

    async def close(payment_id: UUID, _attempt_id: UUID) -> bool:
        try:
            payment = await payments.cancel(payment_id, "expire", seen=Seen.EXPIRE_ASKED)
        except Refusal as refusal:
            if refusal.code == "payment_paid":  # somebody was quicker
                return True
            raise
        return payment.current.error is None

    return await _each(close, [(row["id"], row["attempt_id"]) for row in due])
