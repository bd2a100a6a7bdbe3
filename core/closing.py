"""Closed dates: nothing may take effect in a currency before its closed date, so that what was reported stays true."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from core.audit import audited, record
from core.database import queries
from core.errors import Refusal, expect_revision
from core.ledger.movements import moment

if TYPE_CHECKING:
    from core.database import Database

SQL = queries(__name__)

CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9]{2,11}", re.ASCII)
# As many currencies as the world has, several times over.
MAX_LISTED: Final = 1_000


class ClosedDate(msgspec.Struct, frozen=True, kw_only=True):
    """The closed date of a currency; `closed_before` is null where it was opened again. Each move raises `revision`."""

    currency: str
    closed_before: datetime | None
    revision: int
    moved_at: datetime


async def move_closed_date(
    database: Database,
    currency: str,
    closed_before: datetime | None,
    *,
    actor: str,
    reason: str,
    expected_revision: int | None = None,
) -> ClosedDate:
    """Move the closed date of a currency, forth or back, and return it; None opens all of the past again.

    Raises Refusal `invalid_request` for a time that is not over for a minute, and `precondition_failed` when the date
    has another revision than the expected one.
    """
    closed_before = moment(closed_before)
    if not CURRENCY.fullmatch(currency):
        raise Refusal("invalid_request", "A currency has 3 to 12 upper-case letters and digits.")
    async with database.transaction() as connection:
        await connection.execute(SQL.lock_closed_dates)
        before = await connection.fetchrow(SQL.closed_date, currency, closed_before)
        if before is None:
            raise LookupError("an outer join has a row")
        expect_revision(before["revision"], expected_revision, f"The closed date of {currency}")
        if not before["is_over"]:
            raise Refusal("invalid_request", "A closed date must be over for a minute.")
        row = await connection.fetchrow(SQL.move_closed_date, currency, closed_before)
        if row is None:
            raise LookupError("an upsert has a row")
        data = {"before": before["closed_before"], "after": closed_before, "reason": reason}
        await record(connection, audited("ledger.closed_date", actor, data, object_id=currency))
    return ClosedDate(**row)


async def list_closed_dates(
    database: Database, *, after: str | None = None, limit: int = 100
) -> list[ClosedDate]:
    """Return a page of closed dates in the order of their currencies."""
    return [ClosedDate(**row) for row in await database.fetch(SQL.closed_dates, after, limit)]


async def get_closed_date(database: Database, currency: str) -> ClosedDate:
    """Return the closed date of a currency, or raise Refusal `not_found` where it never had one."""
    row = await database.fetchrow(SQL.get_closed_date, currency)
    if row is None:
        raise Refusal("not_found", f"{currency} has no closed date.")
    return ClosedDate(**row)
