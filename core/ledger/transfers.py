"""Transfers: what an answer shows of one, how they are found, and how one is reversed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from core.database import queries
from core.errors import Refusal
from core.ledger.accounts import statement_span
from core.ledger.items import EntryLine, Leg, Operation, Outcome, Posting, encode_metadata
from core.ledger.movements import moment
from core.ledger.stored import load_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.ledger.accounts import Account

SQL = queries(__name__)

# A number above all others: a list that begins at the newest begins here.
NEWEST = 2**63 - 1
# So many entries are about 3 MB of JSON, made within 0.2 s. A transfer may have 4,000.
PAGE_ENTRIES = 10_000


class Entry(msgspec.Struct, frozen=True):
    """One leg as it was posted, in minor units; `version` and `balance_after` are the account's right after it."""

    account: str
    amount: int
    version: int
    balance_after: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """A posted transfer. It never changes, so the same bytes answer for it for ever."""

    id: str
    kind: str
    reference: str | None
    metadata: dict[str, str]
    recorded_at: datetime
    effective_at: datetime
    reverses: str | None
    captures: str | None
    entries: tuple[Entry, ...]


class ListedTransfer(Transfer, frozen=True, kw_only=True):
    """A transfer as it is read now: with the amount reversed since, in minor units of its largest leg."""

    reversed: int


class TransferFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The filter of a list of transfers: a transfer matches each member that is not None.

    `metadata` are pairs of a name and its value, one of which a transfer must have.
    """

    account: Account | None = None
    recorded_from: datetime | None = None
    recorded_before: datetime | None = None
    kind: str | None = None
    reference: str | None = None
    metadata: Sequence[dict[str, str]] | None = None


def describe(posting: Posting, outcome: Outcome) -> Transfer:
    """Return the transfer that `posting` has become; the same for a replay as for the first answer."""
    if outcome.recorded_at is None:
        raise ValueError("only a posted transfer can be described")
    capture = posting.operation is Operation.CAPTURE
    return Transfer(
        id=str(posting.id),
        kind=posting.kind,
        reference=posting.reference,
        metadata=dict(sorted(posting.metadata.items())) if posting.metadata else {},
        recorded_at=outcome.recorded_at,
        effective_at=outcome.effective_at or posting.effective_at or outcome.recorded_at,
        reverses=str(posting.target_id) if posting.target_id is not None and not capture else None,
        captures=str(posting.target_id) if posting.target_id is not None and capture else None,
        entries=_entries(outcome.entries),
    )


async def find_number(source: Connection | Database, id_: UUID) -> int | None:
    """Return the number that the id of a transfer or a hold stands for."""
    number: int | None = await source.fetchval(SQL.find_item, id_)
    return number


async def get_transfer(database: Database, id_: UUID) -> ListedTransfer:
    """Return a transfer, or raise Refusal `transfer_not_found`."""
    number = await find_number(database, id_)
    found = await get_transfers(database, [number]) if number is not None else []
    if not found:
        raise Refusal("transfer_not_found", f"There is no transfer {id_}.")
    return found[0][1]


async def get_transfers(
    source: Connection | Database, numbers: Sequence[int], *, most_entries: int | None = None
) -> list[tuple[int, ListedTransfer]]:
    """Return the transfers of these numbers with their numbers, newest first; at most `most_entries` entries in all."""
    entries = await load_entries(source, numbers, most=most_entries)
    rows = await source.fetch(SQL.get_transfers, list(entries))
    return [(row["no"], _transfer(row, entries[row["no"]])) for row in rows]


async def list_transfers(
    database: Database, wanted: TransferFilter, *, before: int = NEWEST, limit: int = 100
) -> tuple[list[tuple[int, ListedTransfer]], bool]:
    """Return a page of transfers with numbers below `before`, newest first, and whether another page follows.

    A page ends early at PAGE_ENTRIES entries.
    """
    # Versions and times of one account rise together, so that the very span of its statement is read.
    after, until = 0, NEWEST
    first, last = 0, (NEWEST >> 22) - 1
    if wanted.recorded_from is not None or wanted.recorded_before is not None:
        if wanted.account is not None:
            after, until = await statement_span(
                database, wanted.account, wanted.recorded_from, wanted.recorded_before
            )
        else:
            first, last = await _span(database, wanted)
    arguments: list[Any] = [
        min(before, (last + 1) << 22),
        first << 22,
        wanted.recorded_from,
        wanted.recorded_before,
        wanted.kind,
        wanted.reference,
        [encode_metadata(pair) for pair in wanted.metadata] if wanted.metadata else None,
        limit + 1,
    ]
    if wanted.account is not None:
        numbers = await database.fetch(
            SQL.list_transfers_of_account, *arguments, wanted.account.id, after, until
        )
    elif wanted.reference is not None:
        numbers = await database.fetch(SQL.list_transfers_by_reference, *arguments)
    elif wanted.metadata:
        numbers = await database.fetch(SQL.list_transfers_by_metadata, *arguments)
    elif wanted.kind is not None:
        numbers = await database.fetch(SQL.list_transfers_of_kind, *arguments)
    else:
        numbers = await database.fetch(SQL.list_transfers, *arguments)
    if not numbers:
        return [], False
    page = [row["no"] for row in numbers[:limit]]
    found = await get_transfers(database, page, most_entries=PAGE_ENTRIES)
    return found, len(found) < len(numbers)


async def _span(database: Database, wanted: TransferFilter) -> tuple[int, int]:
    """Return the first and last batch that the time filter can mean, so that a list does not read all of history."""
    row = await database.fetchrow(SQL.batch_span, wanted.recorded_from, wanted.recorded_before)
    if row is None:
        raise RuntimeError("the span query returned no row")
    return row["first_batch"], row["last_batch"]


async def prepare_reversal(  # noqa: PLR0913 - the fields of the request
    source: Connection | Database,
    original_id: UUID,
    *,
    id_: UUID,
    principal_id: int,
    amount: int | None,
    kind: str = "reversal",
    reference: str | None = None,
    metadata: dict[str, str] | None = None,
    effective_at: datetime | None = None,
    expected_revision: int | None = None,
    administered: bool = False,
) -> Posting:
    """Return the posting that gives `amount` (None: all that is left) of a transfer back, leg by leg.

    `amount` is in minor units of the original's largest leg, the first of several: a small leg could not tell most
    parts apart. The transfer must have `expected_revision` as the amount that was reversed. Raises Refusal
    `transfer_not_found`, and `not_reversible` for a transfer that is a reversal itself, or a part of one in several
    currencies.
    """
    effective_at = moment(effective_at)
    number = await find_number(source, original_id)
    found = await get_transfers(source, [number]) if number is not None else []
    if number is None or not found:
        raise Refusal("transfer_not_found", f"There is no transfer {original_id}.")
    original = found[0][1]
    if original.reverses is not None:
        raise Refusal("not_reversible", f"Transfer {original_id} is a reversal; post a new transfer instead.")
    if amount is not None and len({entry.account for entry in original.entries}) > 1:
        await _refuse_part_of_several_currencies(source, original)
    sizes = [abs(entry.amount) for entry in original.entries]
    return Posting(
        id=id_,
        principal_id=principal_id,
        legs=tuple(Leg(entry.account, -entry.amount) for entry in original.entries),
        unit=sizes.index(max(sizes)) + 1,
        expected_revision=expected_revision,
        administered=administered,
        operation=Operation.REVERSAL,
        kind=kind,
        reference=reference,
        metadata=metadata,
        effective_at=effective_at,
        amount=amount,
        target_no=number,
        target_id=original_id,
    )


async def _refuse_part_of_several_currencies(source: Connection | Database, original: ListedTransfer) -> None:
    if len(await source.fetch(SQL.currencies_of, [entry.account for entry in original.entries])) > 1:
        raise Refusal(
            "not_reversible",
            "A transfer in several currencies can be reversed as a whole only.",
            id=original.id,
        )


def _entries(lines: Sequence[EntryLine]) -> tuple[Entry, ...]:
    return tuple([Entry(*line) for line in lines])


def _transfer(row: Row, lines: Sequence[EntryLine]) -> ListedTransfer:
    return ListedTransfer(
        id=str(row["id"]),
        kind=row["kind"],
        reference=row["reference"],
        metadata=dict(sorted(msgspec.json.decode(row["metadata"]).items())) if row["metadata"] else {},
        recorded_at=row["recorded_at"],
        effective_at=row["effective_at"] or row["recorded_at"],
        reverses=str(row["reverses"]) if row["reverses"] is not None else None,
        captures=str(row["captures"]) if row["captures"] is not None else None,
        entries=_entries(lines),
        reversed=row["reversed"],
    )
