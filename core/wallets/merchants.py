"""Becoming a merchant, and what only merchants may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.outbox import endpoints

if TYPE_CHECKING:
    from core.outbox.destinations import Destinations
    from core.outbox.endpoints import Endpoint
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

RECEIVED: Final = "application received"
ALREADY: Final = "already merchant"


def require_merchant(user: User, code: str = "not_a_merchant") -> None:
    """Raise Refusal `code`, by which the contract's routes differ, unless the user is a merchant."""
    if not user.is_merchant:
        raise Refusal(code, "This is for merchants.")


def require_kyc(user: User, level: int) -> None:
    """Raise Refusal `kyc_level_required` below a level of identification."""
    if user.kyc_level < level:
        raise Refusal("kyc_level_required", f"This needs KYC level {level}; yours is {user.kyc_level}.")


async def become_merchant(platform: Platform, user: User) -> None:
    """Make the user a merchant; again and again is the same. Raises Refusal `not_allowed` outside development."""
    if platform.settings.env != "dev":
        raise Refusal("not_allowed", "Only in development merchants appoint themselves.")
    async with platform.database.transaction() as connection:
        if await connection.fetchval(_sql.enable_merchant, user.id) is None:
            return
        await record(connection, audited("merchants.enable", by_user(user.id), {}, user_id=user.id))


async def apply(platform: Platform, user: User) -> str:
    """Ask to become a merchant; return what to say. An administrator decides.

    Raises Refusal `kyc_approval_required`, and `not_allowed` for whoever was suspended.
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


async def create_endpoint(
    platform: Platform, destinations: Destinations, user: User, *, url: str, secret: str
) -> Endpoint:
    """Make an endpoint for the merchant's events, signed with a secret of their own.

    Raises Refusal `merchant_only`, and `invalid_request` like `core.outbox.endpoints.create`.
    """
    require_merchant(user, "merchant_only")
    async with platform.database.transaction() as connection:
        endpoint, _ = await endpoints.create(
            connection,
            destinations,
            principal_id=user.principal_id,
            wanted=endpoints.Wanted(url, secret=secret, own_secret=True),
        )
        entry = audited(
            "webhooks.endpoint_create",
            by_user(user.id),
            {"url": url},
            user_id=user.id,
            object_id=str(endpoint.id),
        )
        await record(connection, entry)
    return endpoint
