"""Users' webhook endpoints: merchants make them; administrators list all and switch them on or off."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal
from core.outbox import endpoints
from core.vault import Vault
from core.wallets.administration import ADMIN
from core.wallets.merchants import require_merchant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.outbox.destinations import Destinations
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

# Section 4 of the contract has these types.
CONTRACT_EVENTS: Final = ("payments.qr_pay", "refunds.create", "requests.accept", "webhook.test")


class UserEndpoint(NamedTuple):
    """An endpoint and the user who owns it."""

    id: UUID
    user_id: UUID
    user_phone: str
    url: str
    active: bool
    created_at: datetime


async def create_endpoint(
    platform: Platform,
    destinations: Destinations,
    user: User,
    *,
    url: str,
    secret: str,
    event_types: Sequence[str] = CONTRACT_EVENTS,
) -> endpoints.Endpoint:
    """Make an endpoint for the merchant's events, signed with a secret of the merchant's own.

    Receivers of the contract know its four types and no others, so these are what one gets who asks for none.

    Raises Refusal `merchant_only`, and `invalid_request` like `core.outbox.endpoints.create`.
    """
    require_merchant(user, "merchant_only")
    wanted = endpoints.NewEndpoint(url, event_types, secret=secret, own_secret=True)
    async with platform.database.transaction() as connection:
        endpoint, _ = await endpoints.create(
            connection,
            destinations,
            Vault.of(platform.settings),
            principal_id=user.principal_id,
            wanted=wanted,
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


async def list_endpoints(platform: Platform, *, before: UUID, limit: int) -> list[UserEndpoint]:
    """Return up to `limit` endpoints older than the id `before`, newest first."""
    rows = await platform.database.fetch(_sql.user_endpoints, before, limit)
    return [UserEndpoint(*row.values()) for row in rows]


async def switch(platform: Platform, endpoint_id: UUID, *, active: bool) -> None:
    """Switch an endpoint on or off; a repetition changes nothing.

    Raises Refusal `endpoint_not_found`, and `endpoint_unverified` like `core.outbox.endpoints.switch`.
    """
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_endpoint, endpoint_id)
        if row is None:
            raise Refusal("endpoint_not_found", f"There is no endpoint {endpoint_id}.")
        if row["active"] == active:
            return
        await endpoints.switch(connection, endpoint_id, None if active else endpoints.BY_ADMIN)
        data = {"before": {"active": row["active"]}, "after": {"active": active}}
        entry = audited("webhooks.toggle", ADMIN, data, user_id=row["user_id"], object_id=str(endpoint_id))
        await record(connection, entry)
