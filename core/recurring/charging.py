"""Subscriptions are charged, each in a transaction that locks it, moves the money and moves the period on.

A period is charged once: under the subscription's lock, which parallel chargers skip, and under the ledger's key
`subscription:<id>:<beginning of the period>`. A failed charge is told and tried again within the period; the
subscription is past due meanwhile. An unpaid period is missed and told, never charged later: nobody pays two at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from core.database import queries
from core.errors import Unavailable
from core.ledger.items import SYSTEM_PRINCIPAL, operation_id
from core.payables.kinds import KINDS, Order
from core.payables.pay import check, prepare
from core.payables.payments import Payment, post_within
from core.recurring.subscriptions import Subscription, months_after, subscription_of
from core.wallets.notifications import announce
from core.work.progress import Progress
from core.work.retries import in_transaction, reason_of, retry_in

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# A step of so many takes about half a second.
BATCH: Final = 100
ACTOR: Final = "system:charge"


class Sides(NamedTuple):
    """The payer and the merchant of a subscription."""

    payer: User
    merchant: User


class Period(NamedTuple):
    """The period to charge, which runs now, and the number of unpaid periods before it."""

    starts: datetime
    ends: datetime
    missed: int


def period_of(subscription: Subscription, now: datetime) -> Period:
    """Return the period that `now` lies in; the first period begins at `next_charge_at`."""
    if subscription.interval_months is not None and subscription.anchor is not None:
        return _months_of(subscription, subscription.interval_months, subscription.anchor, now)
    interval = timedelta(days=subscription.interval_days)
    missed = max(0, (now - subscription.next_charge_at) // interval)
    starts = subscription.next_charge_at + missed * interval
    return Period(starts, starts + interval, missed)


def _months_of(subscription: Subscription, months: int, anchor: datetime, now: datetime) -> Period:
    # A period begins in the month of its number, however short: so months are compared, and days only at the end.
    first = _months(anchor, subscription.next_charge_at) // months
    current = max(first, _months(anchor, now) // months)
    if current > first and months_after(anchor, current * months) > now:
        current -= 1
    starts, ends = (months_after(anchor, number * months) for number in (current, current + 1))
    return Period(starts, ends, current - first)


def _months(begin: datetime, end: datetime) -> int:
    return (end.year - begin.year) * 12 + end.month - begin.month


async def step(platform: Platform) -> Progress:
    """Charge up to 100 subscriptions that are due, longest due first."""
    return await charge_due(platform, BATCH)


async def charge_due(platform: Platform, limit: int) -> Progress:
    """Charge up to `limit` subscriptions that are due, longest due first."""
    rows = await platform.database.fetch(_sql.subscriptions_due, limit)
    users = await platform.users.by_ids(row[side] for row in rows for side in ("payer_id", "merchant_id"))
    charged = failed = 0
    for row in rows:
        sides = Sides(users[row["payer_id"]], users[row["merchant_id"]])
        try:
            charged += await _charge(platform, row["id"], sides)
        except Unavailable as error:
            # An unreachable PostgreSQL is no failure of a subscription.
            if error.code != "busy":
                raise
            _log.info("charging.postponed", subscription=str(row["id"]))
        except Exception as error:  # noqa: BLE001 - no failure of one subscription stops the others
            failed += await _failed(platform, row["id"], sides, error)
    if rows:
        platform.wake()
    return Progress(charged, failed)


async def _charge(platform: Platform, subscription_id: UUID, sides: Sides) -> bool:
    """Charge a subscription; return False for one that is not due any more, or is locked by others."""
    # The fee wallet may have to be made. It is asked for here and remembered, so that no transaction waits for another
    # connection of the pool.
    await platform.fee_account()

    async def charge(connection: Connection) -> Payment | None:
        row = await connection.fetchrow(_sql.lock_subscription_due, subscription_id)
        if row is None:
            return None
        subscription = subscription_of(row)
        period = period_of(subscription, row["now"])
        payment = await _payment(platform, subscription, sides, period)
        await connection.execute(
            _sql.subscription_charged, subscription_id, period.ends, period.missed, payment.id
        )
        await _tell_missed(connection, subscription, sides, period)
        # The posting comes last, because all payments to the same merchant wait for its locks.
        await post_within(connection, platform, payment)
        return payment

    charged = await in_transaction(platform.database, charge)
    if charged is None:
        return False
    KINDS["subscription"].counted(charged)
    return True


async def _failed(platform: Platform, subscription_id: UUID, sides: Sides, error: Exception) -> bool:
    """Note a failure once; return False where another process has charged, ended or noted the subscription."""
    refusal = reason_of(error)
    if refusal is not error:
        _log.error("charging.failed", subscription=str(subscription_id), exc_info=error)
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_subscription_due, subscription_id)
        if row is None:
            return False
        subscription = subscription_of(row)
        period = period_of(subscription, row["now"])
        attempts = 1 if period.missed else subscription.attempts + 1
        try_at = min(row["now"] + retry_in(attempts), period.ends)
        await connection.execute(
            _sql.subscription_failed,
            subscription_id,
            period.starts,
            try_at,
            attempts,
            refusal.code,
            period.missed,
        )
        await _tell_missed(connection, subscription, sides, period)
        data = {"id": str(subscription_id), "reason": refusal.code, "attempts": attempts}
        await _tell(connection, "subscriptions.charge_failed", data, sides)
    return True


async def _payment(platform: Platform, subscription: Subscription, sides: Sides, period: Period) -> Payment:
    subscription_id, starts = str(subscription.id), period.starts.isoformat()
    order = Order(
        "subscription",
        sides.payer,
        sides.merchant,
        subscription.amount,
        subscription.currency,
        (subscription_id, starts),
        payer=sides.payer,
        actor=ACTOR,
        object_id=subscription_id,
    )
    check(platform, order)
    transfer_id = operation_id(SYSTEM_PRINCIPAL, f"subscription:{subscription_id}:{starts}")
    return await prepare(platform, order, transfer_id)


async def _tell_missed(
    connection: Connection, subscription: Subscription, sides: Sides, period: Period
) -> None:
    if period.missed:
        data = {"id": str(subscription.id), "periods": period.missed}
        await _tell(connection, "subscriptions.missed", data, sides)


async def _tell(connection: Connection, event: str, data: dict[str, Any], sides: Sides) -> None:
    payer, merchant = sides
    await announce(connection, event, data, (merchant, payer), actor=ACTOR, about=payer.id)
