"""Subscriptions: a payer pays a merchant the same amount every so many days or months; `charging` moves the money."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import UUID

from core import ids, metrics
from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.payables.limits import PER_DAY, PER_TRANSFER, limit_refusal, payer_limits, read_outgoing
from core.wallets.notifications import announce, write

if TYPE_CHECKING:
    from core.database import Row
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

LISTED: Final = 200


class Subscription(NamedTuple):
    """A subscription as stored, the amount in minor units.

    With `interval_months` it goes by the calendar: its periods begin on the day of `anchor`, or on the last day of a
    shorter month.

    `next_charge_at` is the beginning of the next unpaid period, and `try_at` the time of its charge, which is later
    after `attempts` failures in this period. `last_error` is the last failure's code. `missed_periods` ended unpaid.
    """

    id: UUID
    payer_id: UUID
    merchant_id: UUID
    amount: int
    currency: str
    interval_days: int
    state: str
    next_charge_at: datetime
    try_at: datetime
    attempts: int
    last_error: str | None
    missed_periods: int
    last_transfer_id: UUID | None
    created_at: datetime
    interval_months: int | None = None
    anchor: datetime | None = None


def subscription_of(row: Row) -> Subscription:
    """Read a subscription out of a row that has the columns of one."""
    return Subscription(*(row[name] for name in Subscription._fields))


def months_after(moment: datetime, months: int) -> datetime:
    """Return the moment so many months later: on the same day, or on the last day of a shorter month.

    >>> [f"{months_after(datetime(2026, 1, 31), number):%d %b}" for number in range(4)]
    ['31 Jan', '28 Feb', '31 Mar', '30 Apr']
    """
    years, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, monthrange(years, month + 1)[1])
    return moment.replace(year=years, month=month + 1, day=day)


async def create(
    platform: Platform,
    payer: User,
    merchant_phone: str,
    amount: int,
    interval_days: int,
    interval_months: int | None = None,
) -> Subscription:
    """Subscribe for `amount` minor units; the first charge comes after `interval_days`, or after `interval_months`.

    Raises Refusal `merchant_not_found`, `target_not_a_merchant`, `transfer_limit_exceeded`, `daily_amount_exceeded`.
    """
    merchant = await platform.users.by_phone(merchant_phone)
    if merchant is None:
        raise Refusal("merchant_not_found", "Nobody has a wallet under this phone.")
    if not merchant.sells:
        raise Refusal("target_not_a_merchant", "The payee of a subscription is a merchant.")
    await _within_limits(platform, payer, amount)
    now = datetime.now(UTC)
    starts = now + timedelta(days=interval_days)
    subscription_id = ids.new_uuid()
    data = {"id": str(subscription_id), "amount_cents": amount, "interval_days": interval_days}
    if interval_months is not None:
        starts = months_after(now, interval_months)
        data["interval_months"] = interval_months
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(
            _sql.create_subscription,
            subscription_id,
            payer.id,
            merchant.id,
            amount,
            platform.currency,
            interval_days,
            starts,
            interval_months,
            None if interval_months is None else now,
        )
        if row is None:
            raise LookupError("a new subscription was not stored")
        told = await announce(
            connection,
            "subscriptions.create",
            data,
            (merchant, payer),
            actor=by_user(payer.id),
            about=merchant.id,
        )
    platform.wake(told)
    metrics.SUBSCRIPTIONS.add("created")
    return subscription_of(row)


async def of_user(
    platform: Platform,
    user: User,
    role: Literal["payer", "merchant"] = "payer",
    *,
    state: str | None = None,
    before: UUID | None = None,
    limit: int = LISTED,
) -> list[Subscription]:
    """Return the newest subscriptions that a user pays, or is paid by: in a state, before an id (None: any)."""
    statement = _sql.subscriptions_of if role == "payer" else _sql.subscriptions_to
    rows = await platform.database.fetch(statement, user.id, limit, state, before)
    return [subscription_of(row) for row in rows]


async def get(platform: Platform, user: User, subscription_id: UUID) -> Subscription:
    """Return a subscription to its payer or its merchant. Raises Refusal `subscription_not_found`, `forbidden`."""
    found = await _find(platform, subscription_id)
    if user.id not in {found.payer_id, found.merchant_id}:
        raise Refusal("forbidden", "This subscription is between others.")
    return found


async def cancel(platform: Platform, payer: User, subscription_id: UUID) -> bool:
    """End a subscription, after a charge that is under way; return False for one that had ended before.

    Raises Refusal `subscription_not_found`, `forbidden`.
    """
    found = await _of_payer(platform, payer, subscription_id)
    users = await platform.users.by_ids([found.payer_id, found.merchant_id])
    data = {"id": str(subscription_id)}
    told = False
    async with platform.database.transaction() as connection:
        ended = await connection.fetchval(_sql.cancel_subscription, subscription_id) is not None
        if ended:
            told = await announce(
                connection,
                "subscriptions.cancel",
                data,
                users.values(),
                actor=by_user(payer.id),
                about=found.merchant_id,
            )
    platform.wake(told)
    if ended:
        metrics.SUBSCRIPTIONS.add("canceled")
    return ended


async def force_due(platform: Platform, payer: User, subscription_id: UUID) -> None:
    """Let the next period begin a minute ago.

    Raises Refusal `forbidden`, also outside development, and `subscription_not_found`.
    """
    require_dev(platform)
    await _of_payer(platform, payer, subscription_id)
    data = {"id": str(subscription_id)}
    async with platform.database.transaction() as connection:
        await connection.execute(_sql.force_subscription_due, subscription_id)
        entry = audited("subscriptions.dev_force_due", by_user(payer.id), data, object_id=data["id"])
        await write(connection, (), [entry])


def require_dev(platform: Platform) -> None:
    """Raise Refusal `forbidden` outside development."""
    if platform.settings.env != "dev":
        raise Refusal("forbidden", "Due times can be moved in development only.")


async def _within_limits(platform: Platform, payer: User, amount: int) -> None:
    """Refuse an amount that could not be charged today; each charge is checked again under the wallet's lock."""
    outgoing = await read_outgoing(platform.database, payer.account)
    if outgoing is None:
        return
    bounds = outgoing.within(payer_limits(platform.settings, payer))
    if bounds.transfer_max is not None and amount > bounds.transfer_max:
        raise limit_refusal(PER_TRANSFER, amount, platform.currency, outgoing, bounds)
    if bounds.day_amount_max is not None and outgoing.day_sum + amount > bounds.day_amount_max:
        raise limit_refusal(PER_DAY, amount, platform.currency, outgoing, bounds)


async def _of_payer(platform: Platform, payer: User, subscription_id: UUID) -> Subscription:
    found = await _find(platform, subscription_id)
    if found.payer_id != payer.id:
        raise Refusal("forbidden", "Only the payer can change a subscription.")
    return found


async def _find(platform: Platform, subscription_id: UUID) -> Subscription:
    row = await platform.database.fetchrow(_sql.find_subscription, subscription_id)
    if row is None:
        raise Refusal("subscription_not_found", f"There is no subscription {subscription_id}.")
    return subscription_of(row)
