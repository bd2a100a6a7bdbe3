"""The audit: records of acts, their actors and their objects, written by the transaction that does the act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from core import ids
from core.database import queries
from core.ledger.items import Audited

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from core.database import Connection, Database

_sql = queries(__name__)
_encode = msgspec.json.Encoder().encode


class AuditEvent(NamedTuple):
    """A record as stored; `data` is a JSON object, for a change with the values `before` and `after`."""

    id: UUID
    type: str
    actor: str
    user_id: UUID | None
    object_id: str | None
    data: dict[str, Any]
    created_at: datetime


class AuditFilter(NamedTuple):
    """The records that are wanted; None means any. `since` is included, `until` is not."""

    type: str | None = None
    user_id: UUID | None = None
    actor: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def audited(
    type_: str,
    actor: str,
    data: Mapping[str, Any],
    *,
    user_id: UUID | None = None,
    object_id: str | None = None,
) -> Audited:
    """Return a record to be written. `actor`: `user:<id>`, `admin`, `internal` or `system:<job>`."""
    return Audited(type_, actor, user_id, object_id, _encode(data).decode())


async def record(source: Connection | Database, *entries: Audited) -> None:
    """Write records. The record of an act is written in the act's transaction, if it has one."""
    if entries:
        columns = zip(*((ids.new_uuid(), *entry) for entry in entries), strict=True)
        await source.execute(_sql.write_audit_events, *map(list, columns))


def by_user(user_id: UUID) -> str:
    """Return the name of a user as an actor."""
    return f"user:{user_id}"


async def list_events(
    database: Database, wanted: AuditFilter, *, before: UUID | None, limit: int
) -> list[AuditEvent]:
    """Return up to `limit` records older than the id `before`, newest first. Ids are in the order of time."""
    first, last = ids.span_of(wanted.since, wanted.until)
    rows = await database.fetch(
        _sql.audit_events,
        wanted.type,
        wanted.user_id,
        wanted.actor,
        wanted.object_id,
        last if before is None else min(before, last),
        first,
        limit,
        None if wanted.since is None else ids.within_calendar(wanted.since),
        None if wanted.until is None else ids.within_calendar(wanted.until),
    )
    return [AuditEvent(**{**row, "data": msgspec.json.decode(row["data"])}) for row in rows]
