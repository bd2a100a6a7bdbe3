"""Stored outcomes: the database keeps one under each key, and a repeated call is answered with it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from core.database import queries
from core.ledger.items import EntryLine, Outcome
from core.ledger.outcomes import OUTCOMES, POSTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection, Database

SQL = queries(__name__)


async def load_outcomes(source: Connection | Database, ids: Sequence[UUID]) -> dict[UUID, Outcome]:
    """Return the stored outcomes of these ids, marked as replayed; ids that were never used are missing."""
    rows = await source.fetch(SQL.stored_outcomes, list(ids))
    entries = await load_entries(source, [row["no"] for row in rows if row["no"] is not None])
    found = {}
    for row in rows:
        if row["no"] is None:
            found[row["id"]] = Outcome(
                OUTCOMES[row["outcome"]], replayed=True, account=row["account"], figure=row["figure"]
            )
        else:
            found[row["id"]] = Outcome(
                OUTCOMES[POSTED],
                replayed=True,
                no=row["no"],
                recorded_at=row["recorded_at"],
                effective_at=row["effective_at"],
                entries=tuple(entries[row["no"]]),
                amount=row["amount"],
                captured=row["captured"],
                expires_at=row["expires_at"],
            )
    return found


async def load_entries(
    source: Connection | Database, numbers: Sequence[int], *, most: int | None = None
) -> dict[int, list[EntryLine]]:
    """Return the entries of these items, each in the order of its legs.

    `most` (4,001 or more, so that any item fits) bounds the number of entries: items beyond it are missing, those with
    the lowest numbers first.
    """
    entries: dict[int, list[EntryLine]] = defaultdict(list)
    if numbers:
        batches = list({no >> 22 for no in numbers})
        rows = await source.fetch(SQL.stored_entries, list(numbers), batches, most)
        for row in reversed(rows):
            entries[row["item"]].append(EntryLine(row["code"], row["amount"], row["version"], row["balance"]))
        if len(rows) == most:
            del entries[rows[-1]["item"]]  # some of its entries may be missing
    return entries
