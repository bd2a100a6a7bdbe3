"""Administration of people: merchants, KYC reviews, frozen wallets, the end of sign-ins.

Each act is one transaction with its audit record, and with the event for the merchant whom it concerns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.ledger.accounts import change_account, get_account
from core.outbox.events import new_event, write_events
from core.wallets.users import User, seconds_ahead, user_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection
    from core.platform import Platform

_sql = queries(__name__)

ADMIN: Final = "admin"

Decision = Literal["approve", "reject"]


class Merchant(NamedTuple):
    """A user as a merchant. `fee_bps` is the own fee in basis points; None means the platform's fee."""

    user_id: UUID
    phone: str
    is_merchant: bool
    status: str
    fee_bps: int | None


class MerchantChanges(NamedTuple):
    """Changes of a merchant; a field that is None stays as it is. `no_own_fee` takes a merchant's own fee away."""

    is_merchant: bool | None = None
    status: str | None = None
    fee_bps: int | None = None
    no_own_fee: bool = False


class Applicant(NamedTuple):
    """A user who waits for a KYC review."""

    user_id: UUID
    phone: str
    name: str | None
    kyc_level: int
    kyc_status: str
    created_at: datetime


async def merchant_of(platform: Platform, phone: str) -> Merchant:
    """Return the user of a phone as a merchant. Raises Refusal `user_not_found`."""
    user = await platform.users.by_phone(phone)
    if user is None:
        raise _missing()
    return Merchant(user.id, user.phone, user.is_merchant, user.merchant_status, user.merchant_fee_bps)


async def merchants(
    platform: Platform, *, after: UUID, limit: int, offset: int, status: str | None
) -> list[Merchant]:
    """Return up to `limit` merchants behind the id `after` and `offset` others, oldest first.

    A `status` selects all users who have it, merchants or not: a user who has applied is no merchant yet.
    """
    if status is None:
        rows = await platform.database.fetch(_sql.merchants, after, limit, offset)
    else:
        rows = await platform.database.fetch(_sql.merchants_in_status, after, limit, offset, status)
    return [Merchant(*row.values()) for row in rows]


async def set_merchant(platform: Platform, user_id: UUID, changes: MerchantChanges) -> None:
    """Make a user a merchant, or change the terms of one. Raises Refusal `user_not_found`."""
    async with platform.database.transaction() as connection:
        user = await _locked(connection, user_id)
        after = await connection.fetchrow(_sql.set_merchant, user_id, *changes)
        if after is None:
            raise _missing()
        before = {name: getattr(user, name) for name in after.keys()}  # noqa: SIM118 - a Record yields values
        data = {"before": before, "after": dict(after)}
        if data["before"] == data["after"]:
            return
        await _done(connection, user, "merchants.set", data, told=user.is_merchant or after["is_merchant"])
    platform.wake()


async def waiting_for_review(platform: Platform, *, after: UUID, limit: int) -> list[Applicant]:
    """Return up to `limit` users behind the id `after` whose KYC waits for a review, oldest first."""
    rows = await platform.database.fetch(_sql.kyc_queue, after, limit)
    return [Applicant(*row.values()) for row in rows]


async def review(
    platform: Platform, user_id: UUID, decision: Decision, *, level: int, reason: str | None
) -> tuple[int, str]:
    """Approve a user to a KYC level (1 or 2), or reject the user for a reason; return the new level and status.

    An approved user may be approved to another level, or rejected, which takes the level away. A repetition changes
    nothing. Raises Refusal `user_not_found`, and `kyc_not_pending` for a user who has not applied or was rejected.
    """
    wanted = (level, "approved") if decision == "approve" else (0, "rejected")
    async with platform.database.transaction() as connection:
        user = await _locked(connection, user_id)
        if (user.kyc_level, user.kyc_status) == wanted:
            return wanted
        if user.kyc_status not in {"pending", "approved"}:
            raise Refusal("kyc_not_pending", f"The KYC status of this user is {user.kyc_status}.")
        await connection.execute(_sql.set_kyc, user_id, *wanted)
        data = {
            "before": {"kyc_level": user.kyc_level, "kyc_status": user.kyc_status},
            "after": {"kyc_level": wanted[0], "kyc_status": wanted[1]},
            "reason": reason,
        }
        await _done(connection, user, "kyc.review", data, told=user.is_merchant)
    platform.wake()
    return wanted


async def freeze(platform: Platform, user_id: UUID, *, frozen: bool, reason: str) -> bool:
    """Freeze a wallet, so that no money leaves or reaches it, or unfreeze it; return False when nothing changes.

    Raises Refusal `user_not_found`.
    """
    wanted: Literal["frozen", "open"] = "frozen" if frozen else "open"
    async with platform.database.transaction() as connection:
        user = await _locked(connection, user_id)
        # Every freeze takes the lock of the user's row, so two of them at once are one change.
        before = (await get_account(connection, user.account)).state
        if before == wanted:
            return False
        await change_account(connection, user.account, state=wanted)
        data = {"before": before, "after": wanted, "reason": reason}
        name = "wallet.freeze" if frozen else "wallet.unfreeze"
        await _done(connection, user, name, data, told=user.is_merchant)
    platform.wake()
    return True


async def end_sign_ins(platform: Platform, user_id: UUID) -> int:
    """End all sign-ins of a user, on every device, and return their number. Raises Refusal `user_not_found`.

    Passkeys are removed. Tokens without a sign-in end, too: every token issued until now, to the second, is invalid.
    """
    async with platform.database.transaction() as connection:
        user = await _locked(connection, user_id)
        ended = await connection.execute(_sql.end_sign_ins, user_id, seconds_ahead(platform.settings))
        await record(connection, audited("auth.sign_out_all", ADMIN, {"sessions": ended}, user_id=user.id))
    return ended


async def _locked(connection: Connection, user_id: UUID) -> User:
    row = await connection.fetchrow(_sql.lock_user, user_id)
    if row is None:
        raise _missing()
    return user_of(row)


async def _done(
    connection: Connection, user: User, name: str, data: Mapping[str, Any], *, told: bool
) -> None:
    """Write the audit record and, for a merchant, the event of the same name."""
    await record(connection, audited(name, ADMIN, data, user_id=user.id, object_id=str(user.id)))
    if told:
        told_data = {"user": str(user.id), **data}
        event = new_event(user.principal_id, name, told_data, object_id=str(user.id))
        await write_events(connection, [event])


def _missing() -> Refusal:
    return Refusal("user_not_found", "There is no such user.")
