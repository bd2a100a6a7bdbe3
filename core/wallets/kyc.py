"""Know your customer: the check of a level, the request for approval, and approval of oneself in development."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.wallets.notifications import tell, write

if TYPE_CHECKING:
    from core.platform import Platform
    from core.settings import Settings
    from core.wallets.users import User

_sql = queries(__name__)

SUBMITTED: Final = "submitted"
APPROVED: Final = "already approved"


def require_kyc(user: User, level: int) -> None:
    """Raise Refusal `kyc_level_required` for a user below a KYC level."""
    if user.kyc_level < level:
        raise Refusal("kyc_level_required", f"This needs KYC level {level}; yours is {user.kyc_level}.")


def require_proven(settings: Settings, payer: User) -> None:
    """Raise Refusal `phone_not_proven` for a wallet whose phone nobody has proven by a code: its money waits.

    A password or another service's word can name anybody's phone. Development, whose code is the same for everybody,
    has no proof and no such rule. A proof lasts, so this needs no lock: an older reading can only refuse too much.
    """
    if payer.phone_proven_at is None and settings.env != "dev":
        raise Refusal(
            "phone_not_proven",
            "The money of this wallet waits until its owner has signed in with a code sent to its phone.",
        )


async def submit(platform: Platform, user: User) -> str:
    """Ask for approval; return SUBMITTED or APPROVED. A repetition changes nothing."""
    if user.kyc_status == "approved":
        return APPROVED
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.submit_kyc, user.id) is None:
            return SUBMITTED
        data = {"before": user.kyc_status, "after": "pending"}
        await record(connection, audited("kyc.submit", by_user(user.id), data, user_id=user.id))
        await write(connection, tell(user, "kyc.submit", {"user": str(user.id)}))
    platform.wake()
    return SUBMITTED


async def approve_oneself(platform: Platform, user: User) -> int:
    """Approve the user and return the level. Raises Refusal `not_allowed` outside development."""
    if platform.settings.env != "dev":
        raise Refusal("not_allowed", "Users can approve themselves in development only.")
    async with platform.database.transaction() as connection:
        level: int | None = await connection.fetchval(_sql.approve_kyc, user.id)
        if level is None:
            return user.kyc_level
        data = {"before": user.kyc_level, "after": level}
        await record(connection, audited("kyc.approve", by_user(user.id), data, user_id=user.id))
        await write(connection, tell(user, "kyc.approve", {"user": str(user.id), "kyc_level": level}))
    platform.wake()
    return level
