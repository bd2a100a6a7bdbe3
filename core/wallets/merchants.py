"""Merchants: the check that a user is one, and how a user becomes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

RECEIVED: Final = "application received"
ALREADY: Final = "already merchant"


def require_merchant(user: User, code: str = "not_a_merchant") -> None:
    """Raise Refusal `code`, which differs among the contract's routes, unless the user is a merchant."""
    if not user.is_merchant:
        raise Refusal(code, "Only merchants may do this.")


def require_seller(user: User) -> None:
    """Raise Refusal `not_a_merchant` unless the user may be paid as a merchant now, see `User.sells`."""
    if not user.sells:
        raise Refusal("not_a_merchant", "This is for merchants in good standing.")


async def become_merchant(platform: Platform, user: User) -> None:
    """Make the user a merchant; a repetition changes nothing. Raises Refusal `not_allowed` outside development."""
    if platform.settings.env != "dev":
        raise Refusal("not_allowed", "Users can appoint themselves as merchants in development only.")
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.enable_merchant, user.id) is None:
            return
        await record(connection, audited("merchants.enable", by_user(user.id), {}, user_id=user.id))


async def apply(platform: Platform, user: User) -> str:
    """Ask to become a merchant; return RECEIVED or ALREADY. An administrator decides.

    Raises Refusal `kyc_approval_required`, and `not_allowed` for a merchant who was suspended.
    """
    if user.is_merchant:
        return ALREADY
    if user.kyc_status != "approved":
        raise Refusal("kyc_approval_required", "Have your identity approved first.")
    if user.merchant_status == "suspended":
        raise Refusal("not_allowed", "This merchant was suspended.")
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.apply_as_merchant, user.id) is not None:
            data = {"before": user.merchant_status, "after": "applied"}
            await record(connection, audited("merchants.apply", by_user(user.id), data, user_id=user.id))
    return RECEIVED
