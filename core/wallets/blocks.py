"""Blocked senders: somebody whom a user has blocked can neither ask the user for money nor bill the user.

A block does not stop a sibling service of the operator, which asks in somebody's name (`/internal`).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from core.audit import audited, by_user, record
from core.database import queries
from core.errors import Refusal

if TYPE_CHECKING:
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)


class Blocked(NamedTuple):
    """A sender whom a user has blocked."""

    id: UUID
    phone: str
    created_at: datetime


async def block(platform: Platform, user: User, phone: str) -> bool:
    """Block the user of a phone; return False for one who is blocked already. Raises Refusal `user_not_found`."""
    return await _change(platform, user, phone, blocked=True)


async def unblock(platform: Platform, user: User, phone: str) -> bool:
    """End a block; return False where there is none. Raises Refusal `user_not_found`."""
    return await _change(platform, user, phone, blocked=False)


async def list_blocked(platform: Platform, user: User, *, after: UUID, limit: int) -> list[Blocked]:
    """Return up to `limit` senders whom a user has blocked, behind the user id `after`."""
    rows = await platform.database.fetch(_sql.blocked_senders, user.id, after, limit)
    return [Blocked(*(row[name] for name in Blocked._fields)) for row in rows]


async def _change(platform: Platform, user: User, phone: str, *, blocked: bool) -> bool:
    sender = await platform.users.by_phone(phone)
    if sender is None or sender.id == user.id:
        raise Refusal("user_not_found", "There is no such sender.")
    statement = _sql.block_sender if blocked else _sql.unblock_sender
    name = "senders.block" if blocked else "senders.unblock"
    async with platform.database.transaction() as connection:
        if await connection.fetchval(statement, user.id, sender.id) is None:
            return False
        entry = audited(name, by_user(user.id), {}, user_id=sender.id, object_id=str(sender.id))
        await record(connection, entry)
    return True
