"""Holds: money set aside, then captured in parts, given back, extended, or given back when its time is over.

A hold fixes source, destinations and fee legs when it is made, and counts against the source's limits at once, so that
a capture cannot fail for lack of funds. Partial captures take their part of every leg.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec

from core.database import queries
from core.errors import Refusal
from core.ledger.items import MAX_CALL_LEGS, SYSTEM_PRINCIPAL, Leg, Operation, Outcome, Posting, operation_id
from core.ledger.posting import post
from core.ledger.transfers import NEWEST, find_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.database import Connection, Database

SQL = queries(__name__)

HoldState = Literal["open", "captured", "voided", "expired"]
STATES: tuple[HoldState, ...] = ("open", "captured", "voided", "expired")
# One round of expiries is one call of the posting function.
EXPIRY_ROUND = 1_000


class HoldLeg(msgspec.Struct, frozen=True):
    """One leg of the whole hold, in minor units; the source's is negative."""

    account: str
    amount: int


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold. `remaining` is what can still be captured; 0 once the hold is no longer open."""

    id: str
    state: HoldState
    source: str
    amount: int
    captured: int
    remaining: int
    legs: tuple[HoldLeg, ...]
    kind: str
    reference: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    created_at: datetime


class StoredHold(msgspec.Struct, frozen=True):
    """A hold with its number, and its revision: the number of its events."""

    no: int
    hold: Hold
    revision: int


def describe(posting: Posting, outcome: Outcome) -> Hold:
    """Return the hold right after `posting` made it; the same for a replay as for the first answer."""
    if outcome.recorded_at is None:
        raise ValueError("only a hold that was made can be described")
    amount = -posting.legs[0].amount
    return Hold(
        id=str(posting.id),
        state="open",
        source=posting.legs[0].account,
        amount=amount,
        captured=0,
        remaining=amount,
        legs=tuple(HoldLeg(*leg) for leg in posting.legs),
        kind=posting.kind,
        reference=posting.reference,
        metadata=dict(sorted(posting.metadata.items())) if posting.metadata else {},
        expires_at=outcome.expires_at,
        created_at=outcome.recorded_at,
    )


def after(stored: StoredHold, posting: Posting, outcome: Outcome) -> Hold:
    """Return the hold as it was right after `posting` captured, voided or extended it; the same for a replay."""
    hold = stored.hold
    captured = outcome.captured or 0
    state: HoldState = "open"
    if posting.operation is Operation.VOID:
        state = "voided"
    elif captured == hold.amount:
        state = "captured"
    return msgspec.structs.replace(
        hold,
        state=state,
        captured=captured,
        remaining=hold.amount - captured if state == "open" else 0,
        expires_at=outcome.expires_at,
    )


async def get_hold(source: Connection | Database, id_: UUID) -> StoredHold:
    """Return a hold, or raise Refusal `hold_not_found`."""
    number = await find_number(source, id_)
    found = await get_holds(source, [number]) if number is not None else []
    if not found:
        raise Refusal("hold_not_found", f"There is no hold {id_}.")
    return found[0]


async def get_holds(source: Connection | Database, numbers: Sequence[int]) -> list[StoredHold]:
    """Return the holds of these numbers, newest first."""
    rows = await source.fetch(SQL.get_holds, list(numbers))
    named = {id_ for row in rows for id_ in row["leg_accounts"]}
    codes = {row["id"]: row["code"] for row in await source.fetch(SQL.account_codes, list(named))}
    holds = []
    for row in rows:
        state = STATES[row["state"]]
        legs = tuple(
            HoldLeg(codes[account], amount)
            for account, amount in zip(row["leg_accounts"], row["leg_amounts"], strict=True)
        )
        hold = Hold(
            id=str(row["id"]),
            state=state,
            source=codes[row["source_id"]],
            amount=row["amount"],
            captured=row["captured"],
            remaining=row["amount"] - row["captured"] if state == "open" else 0,
            legs=legs,
            kind=row["kind"],
            reference=row["reference"],
            metadata=dict(sorted(msgspec.json.decode(row["metadata"]).items())) if row["metadata"] else {},
            expires_at=row["expires_at"],
            created_at=row["recorded_at"],
        )
        holds.append(StoredHold(row["no"], hold, row["revision"]))
    return holds


async def list_holds(
    database: Database,
    *,
    account_id: int | None = None,
    state: HoldState | None = None,
    before: int = NEWEST,
    limit: int = 100,
) -> list[StoredHold]:
    """Return a page of holds with numbers below `before`, newest first."""
    number = STATES.index(state) if state is not None else None
    rows = await database.fetch(SQL.list_holds, before, account_id, number, limit)
    return await get_holds(database, [row["no"] for row in rows]) if rows else []


def capture(
    stored: StoredHold,
    *,
    id_: UUID,
    principal_id: int,
    amount: int | None,
    reference: str | None = None,
    metadata: dict[str, str] | None = None,
    expected_revision: int | None = None,
) -> Posting:
    """Return the posting that captures `amount` minor units of a hold (None: all that remains)."""
    return Posting(
        id=id_,
        principal_id=principal_id,
        legs=tuple(Leg(leg.account, leg.amount) for leg in stored.hold.legs),
        operation=Operation.CAPTURE,
        kind=stored.hold.kind,
        reference=reference if reference is not None else stored.hold.reference,
        metadata=metadata if metadata is not None else stored.hold.metadata,
        amount=amount,
        target_no=stored.no,
        target_id=UUID(stored.hold.id),
        expected_revision=expected_revision,
    )


def void(
    stored: StoredHold, *, id_: UUID, principal_id: int, expected_revision: int | None = None
) -> Posting:
    """Return the posting that gives back what a hold has left."""
    return _change(stored, Operation.VOID, id_, principal_id, expected_revision=expected_revision)


def extend(
    stored: StoredHold,
    *,
    id_: UUID,
    principal_id: int,
    expires_at: datetime | None,
    expires_in_secs: int | None = None,
    expected_revision: int | None = None,
) -> Posting:
    """Return the posting that moves a hold's end; without one it never ends by itself."""
    return _change(
        stored, Operation.EXTEND, id_, principal_id, expires_at, expires_in_secs, expected_revision
    )


async def expire_due(database: Database) -> int:
    """Give back up to 1,000 holds whose time is over, oldest first; return how many. Call it until it returns 0."""
    rows = await database.fetch(SQL.due_holds, EXPIRY_ROUND)
    ends = itertools.accumulate(len(row["codes"]) for row in rows)
    postings = [
        Posting(
            id=operation_id(SYSTEM_PRINCIPAL, f"expire:{row['id']}"),
            principal_id=SYSTEM_PRINCIPAL,
            legs=tuple(map(Leg, row["codes"], row["leg_amounts"])),
            operation=Operation.EXPIRE,
            target_no=row["no"],
            target_id=row["id"],
        )
        for row, end in zip(rows, ends, strict=True)
        if end <= MAX_CALL_LEGS  # one hold has no more
    ]
    outcomes = await post(database, postings)
    return sum(outcome.posted for outcome in outcomes)


def _change(
    stored: StoredHold,
    operation: Operation,
    id_: UUID,
    principal_id: int,
    expires_at: datetime | None = None,
    expires_in_secs: int | None = None,
    expected_revision: int | None = None,
) -> Posting:
    hold = stored.hold
    # A void names the destinations, too: what it gives back no longer counts against their ceilings.
    legs = hold.legs[:1] if operation is Operation.EXTEND else hold.legs
    return Posting(
        id=id_,
        principal_id=principal_id,
        legs=tuple([Leg(leg.account, leg.amount) for leg in legs]),
        operation=operation,
        kind=hold.kind,
        target_no=stored.no,
        target_id=UUID(hold.id),
        expires_at=expires_at,
        expires_in_secs=expires_in_secs,
        expected_revision=expected_revision,
    )
