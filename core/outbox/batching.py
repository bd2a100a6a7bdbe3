"""Messages made from claimed deliveries: one for each, or one for several if their endpoint asks for batches.

A batch is made of deliveries that one claim has brought and that were never tried, and is written down before it is
sent. One of its deliveries carries it: that one is leased, tried again, given up and found by its id, and the others
share its fate. A batch keeps its members, and so its bytes and ids, for as long as it lives.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core.database import queries
from core.outbox.callbacks import request_of
from core.outbox.signing import message_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.outbox.callbacks import Request

log = structlog.get_logger(__name__)
_sql = queries(__name__)

BATCH_TYPE: Final = "batch"
MAX_BATCH_SIZE: Final = 100
# A message's body stays well below what servers take without being set up for it (nginx: client_max_body_size is
# 1 MiB), and holds twelve of the largest events.
MAX_BATCH_BYTES: Final = 256 * 1024

_HEAD: Final = b'{"type":"batch","data":['
_TAIL: Final = b"]}"


class Message(NamedTuple):
    """One request to be sent, for the delivery `row`, which has the lease, alone or for its batch.

    `identity` is the `webhook-id`; like the body it is the same at every attempt. Only callbacks have a `request`.
    """

    row: Row
    identity: str
    event_type: str
    body: bytes
    request: Request | None = None

    @property
    def is_batch(self) -> bool:
        """Whether the message carries other deliveries."""
        return self.event_type == BATCH_TYPE


class _LeaseLostError(Exception):
    """The lease ran out before the batch was written down, because this worker stood still for so long."""


async def carry(connection: Connection, carriers: Collection[UUID]) -> int:
    """Give the members of batches the state of their carriers, in the transaction that changed those.

    Return the number of members.
    """
    return len(await connection.fetch(_sql.carry_batches, list(carriers))) if carriers else 0


def carriers_of(rows: Iterable[Row]) -> list[UUID]:
    """Return the ids of the deliveries that carry a batch."""
    return [row["id"] for row in rows if row["batch_id"] is not None]


async def messages_of(database: Database, rows: Sequence[Row], token: UUID) -> list[Message]:
    """Return the messages for the deliveries claimed under `token`; their batches are written down."""
    messages: list[Message] = []
    to_batch: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        if row["batch_id"] is not None:
            events = zip(row["batch_events"], row["batch_bodies"], strict=True)
            messages.append(_batch(row, events))
        elif row["batch_size"] > 1 and row["attempts"] == 1 and not row["disabled"]:
            to_batch[row["endpoint_id"]].append(row)
        else:  # a delivery that was tried alone stays alone
            identity = message_id(row["event_id"])
            messages.append(Message(row, identity, row["event_type"], row["body"], request_of(row)))
    groups = [group for found in to_batch.values() for group in _groups(found)]
    if groups:
        try:
            await _form(database, groups, token)
        except _LeaseLostError:
            log.warning("delivery.lease_lost", deliveries=sum(map(len, groups)))
        else:
            messages += [_batch(group[0], _events(group)) for group in groups]
    return messages


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut one endpoint's deliveries, in the order of their events, into batches within both bounds."""
    group: list[Row] = []
    size = 0
    for row in sorted(rows, key=lambda row: row["event_id"].bytes):
        length = len(_member(row["event_id"], row["body"])) + 1
        full = len(group) == row["batch_size"] or size + length > MAX_BATCH_BYTES - len(_HEAD + _TAIL)
        if group and full:
            yield group
            group, size = [], 0
        group.append(row)
        size += length
    if group:
        yield group


async def _form(database: Database, groups: Sequence[Sequence[Row]], token: UUID) -> None:
    members = [(row["id"], group[0]["id"]) for group in groups for row in group]
    async with database.transaction() as connection:
        formed = await connection.fetch(_sql.form_batches, *map(list, zip(*members, strict=True)), token)
        if len(formed) < len(members):
            raise _LeaseLostError


def _events(group: Iterable[Row]) -> Iterator[tuple[UUID, bytes]]:
    return ((row["event_id"], row["body"]) for row in group)


def _batch(carrier: Row, events: Iterable[tuple[UUID, bytes]]) -> Message:
    body = _HEAD + b",".join(_member(event_id, body) for event_id, body in events) + _TAIL
    return Message(carrier, f"batch_{carrier['id'].hex}", BATCH_TYPE, body)


def _member(event_id: UUID, body: bytes) -> bytes:
    # An event's body is an object that begins with its type; its id goes before that.
    return b'{"id":"%s",%s' % (message_id(event_id).encode(), body[1:])
