"""Mandates: a payer consents that invoices of one issuer are paid without asking when they are due."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

from core import ids
from core.audit import by_user
from core.database import queries
from core.errors import Refusal
from core.wallets.notifications import announce

if TYPE_CHECKING:
    from core.database import Row
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

LISTED: Final = 100


class Mandate(NamedTuple):
    """A mandate as stored; amounts in minor units, None for any. Only an active mandate with autopay pays.

    In a `period` (day, week or month, in UTC) it pays `period_max` at most and has paid `period_spent`. Money is taken
    `notice_hours` after the payer was told, or later.
    """

    id: UUID
    payer_id: UUID
    issuer_id: UUID
    issuer_phone: str
    autopay: bool
    max_amount: int | None
    state: str
    created_at: datetime
    updated_at: datetime
    period: str | None
    period_max: int | None
    notice_hours: int
    period_spent: int


class Cap(NamedTuple):
    """The most that a mandate pays in a period, in minor units; None: no cap."""

    amount: int | None
    period: Literal["day", "week", "month"] = "month"


async def upsert(
    platform: Platform,
    payer: User,
    issuer_phone: str,
    *,
    autopay: bool,
    max_amount: int | None,
    cap: Cap | None = None,
    notice_hours: int | None = None,
) -> Mandate:
    """Store the mandate of a payer for an issuer, one a pair; a revoked mandate becomes active again.

    An unknown issuer gets a user and a wallet. `max_amount` is in minor units, None for any. A known mandate keeps its
    cap and its notice where these are None. Raises Refusal `mandate_to_self`.
    """
    issuer = await platform.users.ensure(issuer_phone, actor=by_user(payer.id))
    if issuer.id == payer.id:
        raise Refusal("mandate_to_self", "Nobody bills themselves, so a mandate is for somebody else.")
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(
            _sql.upsert_mandate,
            ids.new_uuid(),
            payer.id,
            issuer.id,
            autopay,
            max_amount,
            None if cap is None else cap.amount,
            None if cap is None or cap.amount is None else cap.period,
            cap is not None,
            notice_hours,
        )
        if row is None:
            raise LookupError("an upsert returned no mandate")
        mandate_id = str(row["id"])
        data = {"id": mandate_id, "autopay": autopay, "max_amount_cents": max_amount}
        if row["period_max"] is not None:
            data |= {"period": row["period"], "period_max_cents": row["period_max"]}
        told = await announce(
            connection,
            "invoices.mandate_upsert",
            data,
            (issuer, payer),
            actor=by_user(payer.id),
            about=issuer.id,
        )
    platform.wake(told)
    return _mandate(row, issuer_phone=issuer.phone)


async def of_payer(
    platform: Platform,
    payer: User,
    *,
    state: str | None = None,
    phone: str | None = None,
    before: UUID | None = None,
    limit: int = LISTED,
) -> list[Mandate]:
    """Return the newest mandates of a payer: in a state, for an issuer's phone, before an id (None: any)."""
    rows = await platform.database.fetch(_sql.mandates_of, payer.id, limit, state, phone, before)
    return [_mandate(row) for row in rows]


async def revoke(platform: Platform, payer: User, mandate_id: UUID) -> bool:
    """Revoke a mandate, which later payments then find revoked; return False for one that was revoked before.

    Raises Refusal `mandate_not_found`, `forbidden`.
    """
    row = await platform.database.fetchrow(_sql.find_mandate, mandate_id)
    if row is None:
        raise Refusal("mandate_not_found", f"There is no mandate {mandate_id}.")
    if row["payer_id"] != payer.id:
        raise Refusal("forbidden", "Only the payer can revoke a mandate.")
    users = await platform.users.by_ids([row["payer_id"], row["issuer_id"]])
    data = {"id": str(mandate_id)}
    told = False
    async with platform.database.transaction() as connection:
        revoked = await connection.fetchval(_sql.revoke_mandate, mandate_id) is not None
        if revoked:
            told = await announce(
                connection,
                "invoices.mandate_revoke",
                data,
                users.values(),
                actor=by_user(payer.id),
                about=row["issuer_id"],
            )
    platform.wake(told)
    return revoked


def _mandate(row: Row, **known: Any) -> Mandate:
    return Mandate(**{name: known[name] if name in known else row[name] for name in Mandate._fields})
