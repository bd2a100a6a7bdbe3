"""Users' webhook endpoints as an administrator sees them: all of them, what was sent to one, switching one off."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.wallets.administration import ADMIN

if TYPE_CHECKING:
    from core.platform import Platform

_sql = queries(__name__)


class UserEndpoint(NamedTuple):
    """An endpoint and whose it is."""

    id: UUID
    user_id: UUID
    user_phone: str
    url: str
    active: bool
    created_at: datetime


class SentTo(NamedTuple):
    """A delivery to an endpoint: `status` is pending, delivered or failed, `attempt_count` those that failed."""

    id: UUID
    event_type: str
    status: str
    attempt_count: int
    last_error: str | None
    created_at: datetime


async def list_endpoints(platform: Platform, *, before: UUID, limit: int) -> list[UserEndpoint]:
    """Return up to `limit` endpoints older than the id `before`, newest first."""
    rows = await platform.database.fetch(_sql.user_endpoints, before, limit)
    return [UserEndpoint(*row.values()) for row in rows]


async def switch(platform: Platform, endpoint_id: UUID, *, active: bool) -> None:
    """Switch an endpoint on or off; nothing changes when it is so already. Raises Refusal `endpoint_not_found`."""
    async with platform.database.transaction() as connection:
        row = await connection.fetchrow(_sql.lock_endpoint, endpoint_id)
        if row is None:
            raise Refusal("endpoint_not_found", f"There is no endpoint {endpoint_id}.")
        if row["active"] == active:
            return
        await connection.execute(_sql.switch_endpoint, endpoint_id, active)
        data = {"before": {"active": row["active"]}, "after": {"active": active}}
        entry = audited("webhooks.toggle", ADMIN, data, user_id=row["user_id"], object_id=str(endpoint_id))
        await record(connection, entry)


async def sent_to(
    platform: Platform, endpoint_id: UUID, *, before: UUID, limit: int, offset: int
) -> list[SentTo]:
    """Return up to `limit` deliveries to an endpoint, older than the id `before`, newest first.

    The first `offset` of them are left out.
    """
    rows = await platform.database.fetch(_sql.endpoint_deliveries, endpoint_id, before, limit, offset)
    return [
        SentTo(
            row["id"],
            row["event_type"],
            # The contract knows no delivery in the making, and counts no attempt that went well.
            "pending" if row["state"] == "leased" else row["state"],
            row["attempts"] - (row["state"] in {"leased", "delivered"}),
            row["last_error"],
            row["created_at"],
        )
        for row in rows
    ]
