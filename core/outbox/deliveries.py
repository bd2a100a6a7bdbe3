"""Deliveries and their attempts as people see them, and how deliveries are sent again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec

from core import ids
from core.database import queries
from core.errors import Refusal
from core.outbox.batching import carriers_of, carry
from core.outbox.ordering import Turn, release, turns_of
from core.outbox.signing import message_id

if TYPE_CHECKING:
    from core.database import Database, Row

_sql = queries(__name__)

# Attempts that one delivery shows, the newest; a schedule has no more, but a delivery can be sent again.
SHOWN_ATTEMPTS: Final = 100
# Deliveries that one call makes due again, and deliveries that one statement does.
REPLAYED: Final = 5_000
REPLAY_BATCH: Final = 500

NEWEST: Final = UUID(int=2**128 - 1)

# The states as people know them, and as the table names them.
STATES: Final = {
    "waiting": "waiting",
    "pending": "pending",
    "sending": "leased",
    "delivered": "delivered",
    "failed": "failed",
}
_SHOWN: Final = {stored: shown for shown, stored in STATES.items()}


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint. `event` is the `webhook-id`, `attempts` counts since it was last (re)sent.

    A pending delivery has `next_attempt_at`, a delivered or failed one `finished_at`. A waiting delivery goes when the
    ones before it, about the same object, are delivered or failed; or another delivery, `batch`, carries it in its
    message.
    """

    id: UUID
    endpoint: UUID
    batch: UUID | None
    event: str
    type: str
    object: str | None
    state: str
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime
    finished_at: datetime | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request: the status and the beginning of the answer, personal data masked, or the error without an answer."""

    at: datetime
    status: int | None
    latency_ms: int
    excerpt: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The deliveries that are wanted; None means any. Times are of the delivery's making, `failed_since` of its end.

    Only operators look without a `principal_id`.
    """

    principal_id: int | None
    endpoint_id: UUID | None = None
    event_id: UUID | None = None
    states: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    failed_since: datetime | None = None


class Replayed(NamedTuple):
    """The number of deliveries that were made due again, and the id to go on from (None: that was all)."""

    replayed: int
    next: UUID | None


async def list_deliveries(
    database: Database, wanted: Filter, *, before: UUID | None, limit: int, offset: int = 0
) -> list[Delivery]:
    """Return up to `limit` deliveries behind `before` and `offset` others, newest first."""
    rows = await _rows(database, wanted, before=before, limit=limit, offset=offset)
    return [_delivery(row) for row in rows]


async def find_delivery(
    database: Database, *, principal_id: int | None, delivery_id: UUID
) -> tuple[Delivery, list[Attempt]]:
    """Return a delivery and its attempts, newest first. Raises Refusal `not_found`, for another principal's too."""
    row = await _find(database, principal_id, delivery_id)
    attempts = await database.fetch(_sql.delivery_attempts, delivery_id, SHOWN_ATTEMPTS)
    return _delivery(row), [Attempt(**dict(attempt)) for attempt in attempts]


async def resend(database: Database, *, principal_id: int | None, delivery_id: UUID) -> None:
    """Make one delivery due again, in whatever state it is; it gets all its attempts anew.

    Raises Refusal `not_found`; `endpoint_missing` or `endpoint_disabled` when there is nobody to send it to; and
    `delivery_in_progress` while it is being sent. Wake `core.work.wakeup.DELIVERIES` then.
    """
    row = await _find(database, principal_id, delivery_id)
    if row["deleted"]:
        raise Refusal("endpoint_missing", "The endpoint of this delivery was deleted.")
    if row["superseded"]:
        raise Refusal("not_found", "A later callback about the object has taken this delivery's place.")
    if row["disabled"]:
        raise Refusal("endpoint_disabled", "The endpoint of this delivery is switched off. Enable it first.")
    due, _ = await _make_due(database, [delivery_id])
    if not due:
        raise Refusal("delivery_in_progress", "This delivery is being sent at this moment.", retry_after=5.0)
    await release(database, turns_of(due))


async def replay(
    database: Database, wanted: Filter, *, before: UUID | None = None, limit: int = REPLAYED
) -> Replayed:
    """Make up to `limit` deliveries due again, newest first, and say how many and from where to go on.

    Deliveries that are being sent, and those of endpoints that are gone or off, stay as they are. Each batch is a
    transaction of its own. A call that breaks off keeps what it has done, and the same call again does the rest, since
    a delivery that is due again is not failed any more.
    """
    replayed, looked_at = 0, 0
    turns: set[Turn] = set()
    more = True
    while more and looked_at < limit:
        size = min(REPLAY_BATCH, limit - looked_at)
        found = await _rows(database, wanted, before=before, limit=size + 1, sendable=True)
        rows, more = found[:size], len(found) > size
        if rows:
            chosen = [row["id"] for row in rows]
            due, carried = await _make_due(database, chosen)
            replayed += len(due) + carried
            turns |= turns_of(due)
            before = chosen[-1]
            looked_at += len(rows)
    # The release comes when all deliveries wait, so that the oldest goes first. A call that breaks off leaves the
    # release to the workers.
    await release(database, turns)
    return Replayed(replayed, before if more else None)


async def _make_due(database: Database, chosen: list[UUID]) -> tuple[list[Row], int]:
    """Make deliveries due again; return those that are, and how many more they carry in batches."""
    async with database.transaction() as connection:
        due = await connection.fetch(_sql.resend_deliveries, chosen)
        return due, await carry(connection, carriers_of(due))


async def _rows(
    database: Database,
    wanted: Filter,
    *,
    before: UUID | None,
    limit: int,
    offset: int = 0,
    sendable: bool = False,
) -> list[Row]:
    first, last = ids.span_of(wanted.since, wanted.until)
    return await database.fetch(
        _sql.list_deliveries,
        last if before is None else min(before, last),
        first,
        wanted.principal_id,
        wanted.endpoint_id,
        wanted.event_id,
        None if wanted.states is None else [STATES[state] for state in wanted.states],
        wanted.types,
        _bound(wanted.failed_since),
        sendable,
        not sendable,
        limit,
        offset,
        _bound(wanted.since),
        _bound(wanted.until),
    )


def _bound(time: datetime | None) -> datetime | None:
    return None if time is None else ids.within_calendar(time)


async def _find(database: Database, principal_id: int | None, delivery_id: UUID) -> Row:
    row = await database.fetchrow(_sql.find_delivery, principal_id, delivery_id)
    if row is None:
        raise Refusal("not_found", f"There is no delivery {delivery_id}.")
    return row


def _delivery(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        endpoint=row["endpoint_id"],
        batch=row["batch_id"],
        event=message_id(row["event_id"]),
        type=row["event_type"],
        object=row["object_id"],
        state=_SHOWN[row["state"]],
        attempts=row["attempts"],
        next_attempt_at=row["due_at"] if row["state"] == "pending" else None,
        last_status=row["last_status"],
        last_error=row["last_error"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
