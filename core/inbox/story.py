"""The story of one event: its arrival, its verification, every attempt, its transfers, our events and deliveries.

No row is kept for it. Transfers and our own events name the object that they are about, so the object of an event leads
to them, and a twin event shows the transfer that the other one made.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from core.database import queries
from core.errors import Refusal
from core.inbox.backfill import FETCHED
from core.inbox.dead_letters import Action, FailedAttempt, actions_of, failures_of
from core.inbox.rules import APPLIED, named_account
from core.inbox.source_verifiers import PROVIDER_PREFIX
from core.ledger.transfers import ListedTransfer, get_transfers
from core.outbox.signing import message_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Database, Row

_sql = queries(__name__)

# A story shows so many rows of each sort, because a person reads it.
MOST_ROWS: Final = 100
MOST_DELIVERIES: Final = 1_000

_headers = msgspec.json.Decoder(dict[str, str])


class Arrival(msgspec.Struct, frozen=True):
    """The event as it came in. Bytes of the body that are not UTF-8 are escaped in `payload`."""

    id: UUID
    provider: str
    event_id: str
    type: str
    object_id: str | None
    occurred_at: datetime | None
    received_at: datetime
    payload: str


class Verification(msgspec.Struct, frozen=True):
    """The ground for believing an event: its `signature`, checked by these headers, or an answer of the `provider`."""

    by: str
    headers: dict[str, str]


class Processing(msgspec.Struct, frozen=True):
    """The present state of an event, with its failed attempts and the actions of people, the newest first.

    `reason` says why an event with the outcome `ignored` has no effect.
    """

    state: str
    outcome: str | None
    reason: str | None
    attempts: int
    replays: int
    due_at: datetime
    last_error: str | None
    worker: UUID | None
    lease_until: datetime | None
    finished_at: datetime | None
    failures: list[FailedAttempt]
    actions: list[Action]


class Sibling(msgspec.Struct, frozen=True):
    """An event about the same object; the event of the story is one of them."""

    id: UUID
    provider: str
    event_id: str
    type: str
    state: str
    outcome: str | None
    received_at: datetime


class ToldTo(msgspec.Struct, frozen=True):
    """A delivery of an event of ours."""

    id: UUID
    endpoint_id: UUID
    url: str | None
    state: str
    attempts: int
    due_at: datetime
    last_status: int | None
    last_error: str | None
    finished_at: datetime | None


class Emitted(msgspec.Struct, frozen=True):
    """An event of ours with its deliveries; `message_id` is the id that its receivers see."""

    id: UUID
    message_id: str
    type: str
    created_at: datetime
    deliveries: list[ToldTo]


class Story(msgspec.Struct, frozen=True):
    """Everything about one event. The first three are null for an event of ours that no event from outside led to."""

    receipt: Arrival | None
    verification: Verification | None
    processing: Processing | None
    transfers: list[ListedTransfer]
    emitted: list[Emitted]
    same_object: list[Sibling]


async def tell(
    database: Database, event: str, *, provider: str | None = None, principal_id: int | None = None
) -> Story:
    """Return the story of `event`: the inbox's id, the provider's, or that of an event of ours (also as `msg_...`).

    A principal sees an event that led to an event of its own, came from a source of its own, or pays an account of its
    own, whatever became of it; and no other. Raises Refusal `not_found`, and `ambiguous_event` where several providers
    have an event of this id and none is named.
    """
    inbox_id, outbox_id, object_id = await _resolve(database, event, provider)
    row = await database.fetchrow(_sql.inbox_event_by_id, inbox_id) if inbox_id is not None else None
    if row is not None:
        object_id = row["object_id"]
    emitted = await _emitted(database, object_id, outbox_id, principal_id)
    if (row is None and outbox_id is None) or (
        principal_id is not None and not await _is_of(database, principal_id, row, emitted)
    ):
        raise Refusal("not_found", f"There is no event {event}.")
    siblings, transfers = await _around(database, object_id, None if row is None else row["provider"])
    return Story(
        receipt=None if row is None else _arrival(row),
        verification=None if row is None else _verification(row),
        processing=None if row is None else await _processing(database, row),
        transfers=transfers,
        emitted=emitted,
        same_object=siblings,
    )


async def _resolve(
    database: Database, event: str, provider: str | None
) -> tuple[UUID | None, UUID | None, str | None]:
    """Return the id in the inbox, the id in the outbox, and the object; None for each that `event` does not lead to."""
    id_ = _uuid(event.removeprefix("msg_"))
    if id_ is not None:
        ours = await database.fetchrow(_sql.object_of_outbox_event, id_)
        if ours is None:
            if await database.fetchrow(_sql.inbox_event_by_id, id_) is not None:
                return id_, None, None
        else:
            object_id = ours["object_id"]
            about = (
                await database.fetch(_sql.inbox_events_of_object, object_id, None, MOST_ROWS)
                if object_id
                else []
            )
            led = [row["id"] for row in about if row["outcome"] == APPLIED]
            return (led[0] if led else None), id_, object_id
    found = await database.fetch(_sql.inbox_ids_by_event, event, provider, 2)
    if len(found) > 1:
        raise Refusal(
            "ambiguous_event", "Several providers have an event of this id: name one as `provider`."
        )
    return (found[0]["id"] if found else None), None, None


async def _is_of(database: Database, principal_id: int, row: Row | None, emitted: Sequence[Emitted]) -> bool:
    """Whether an event led to one of the principal's own, or pays an account or came from a source of the principal.

    An event of another principal's source may name any object, so the object alone proves nothing. An event that a
    provider has signed names the account that the platform has told it.
    """
    if emitted and (row is None or not row["provider"].startswith(PROVIDER_PREFIX)):
        return True
    if row is None:
        return False
    if not row["provider"].startswith(PROVIDER_PREFIX):
        account = named_account(row["event_type"], row["body"]) if row["provider"] == "stripe" else None
        return account is not None and bool(await database.fetchval(_sql.owns_account, account, principal_id))
    name = row["provider"].removeprefix(PROVIDER_PREFIX)
    return bool(await database.fetchval(_sql.owns_source, name, principal_id))


async def _around(
    database: Database, object_id: str | None, provider: str | None
) -> tuple[list[Sibling], list[ListedTransfer]]:
    if object_id is None:
        return [], []
    siblings = await database.fetch(_sql.inbox_events_of_object, object_id, provider, MOST_ROWS)
    numbers = await database.fetch(_sql.transfers_of_object, object_id, provider, MOST_ROWS)
    transfers = await get_transfers(database, [row["no"] for row in numbers]) if numbers else []
    return [Sibling(**row) for row in siblings], [transfer for _, transfer in transfers]


async def _emitted(
    database: Database, object_id: str | None, outbox_id: UUID | None, principal_id: int | None
) -> list[Emitted]:
    rows = await database.fetch(_sql.emitted_about, object_id, outbox_id, principal_id, MOST_ROWS)
    deliveries: dict[UUID, list[ToldTo]] = {row["id"]: [] for row in rows}
    if rows:
        for row in await database.fetch(_sql.deliveries_of_events, list(deliveries), MOST_DELIVERIES):
            fields = dict(row)
            deliveries[fields.pop("event_id")].append(ToldTo(**fields))
    return [
        Emitted(row["id"], message_id(row["id"]), row["type"], row["created_at"], deliveries[row["id"]])
        for row in rows
    ]


def _arrival(row: Row) -> Arrival:
    return Arrival(
        id=row["id"],
        provider=row["provider"],
        event_id=row["event_id"],
        type=row["event_type"],
        object_id=row["object_id"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        payload=row["body"].decode("utf-8", "backslashreplace"),
    )


def _verification(row: Row) -> Verification:
    headers = _headers.decode(row["headers"])
    return Verification("provider" if FETCHED in headers else "signature", headers)


async def _processing(database: Database, row: Row) -> Processing:
    return Processing(
        state=row["state"],
        outcome=row["outcome"],
        reason=row["reason"],
        attempts=row["attempts"],
        replays=row["replays"],
        due_at=row["due_at"],
        last_error=row["last_error"],
        worker=row["lease_worker"],
        lease_until=row["lease_until"],
        finished_at=row["finished_at"],
        failures=await failures_of(database, row["id"]),
        actions=await actions_of(database, row["id"]),
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
