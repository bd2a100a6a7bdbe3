"""The daily report: the sales of each merchant on a UTC day, stored, and told to the merchant once."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from core.audit import audited
from core.database import queries
from core.wallets.notifications import tell, write
from core.wallets.statements import Merchant, settle
from core.wallets.users import user_of
from core.work.progress import Progress

if TYPE_CHECKING:
    from datetime import date

    from core.platform import Platform

_sql = queries(__name__)

# A step has so many merchants, for each of whom a few ranges of entries are read.
BATCH: Final = 50
EVENT: Final = "settlement.report"
ACTOR: Final = "system:settlement"
# The wait after the end of a day: sales that were committed while the day ended are visible by then.
SETTLES_AFTER: Final = timedelta(minutes=5)


async def step(platform: Platform) -> Progress:
    """Report the day before for up to BATCH merchants; nothing is done when all have their report.

    A day is reported five minutes after its end, by one process at a time, which locks the day's row. One transaction
    writes the rows, the events and the progress, so a merchant is told once, even when a process is killed.
    """
    day = day_to_report()
    await platform.database.execute(_sql.begin_settlement_day, day)
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_settlement_day, day)
        if row is None:
            return Progress()
        found = await connection.fetch(_sql.settlement_merchants, row["last_user_id"], BATCH)
        since, until = _span(day)
        for user in map(user_of, found):
            currency, totals = await settle(connection, Merchant(user.id, user.wallet_id), since, until)
            if not (totals.gross or totals.fees or totals.refunds):
                continue
            figures = (totals.gross, totals.fees, totals.refunds)
            await connection.execute(_sql.write_settlement, user.id, day, currency, *figures)
            data = {
                "day": day.isoformat(),
                "currency_code": currency,
                "gross_cents": totals.gross,
                "fees_cents": totals.fees,
                "net_cents": totals.net,
            }
            told = tell(user, EVENT, data, object_id=f"{user.id}:{day.isoformat()}")
            await write(connection, told, [audited(EVENT, ACTOR, data, user_id=user.id)])
        last = found[-1]["id"] if found else row["last_user_id"]
        await connection.execute(_sql.end_settlement_step, day, last, len(found) < BATCH)
    platform.wake()
    return Progress(len(found))


def day_to_report() -> date:
    """Return the last UTC day that has settled."""
    return (datetime.now(UTC) - SETTLES_AFTER).date() - timedelta(days=1)


def _span(day: date) -> tuple[datetime, datetime]:
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1) - timedelta(microseconds=1)
