"""The audit: who did what to whom, with what it was before and after, written by the transaction that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from core import ids
from core.database import statements
from core.ledger.items import Audited

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from core.database import Connection, Database

_sql = statements("platform")
_encode = msgspec.json.Encoder().encode


def audited(
    type_: str,
    actor: str,
    data: Mapping[str, Any],
    *,
    user_id: UUID | None = None,
    object_id: str | None = None,
) -> Audited:
    """Return a record for a posting's effects. `actor`: `user:<id>`, `admin`, `internal` or `system:<job>`."""
    return Audited(type_, actor, user_id, object_id, _encode(data).decode())


async def record(source: Connection | Database, entry: Audited) -> None:
    """Write a record: within the transaction that it is about, wherever there is one."""
    await source.execute(
        _sql.write_audit_event,
        ids.new_uuid(),
        entry.type,
        entry.actor,
        entry.user_id,
        entry.object_id,
        entry.data,
    )


def by_user(user_id: UUID) -> str:
    """Name a user as an actor."""
    return f"user:{user_id}"
