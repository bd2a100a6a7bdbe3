"""Effects of postings, in their transaction: payables that are paid, events that tell of it, audit records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import ids, tracing
from core.ledger.items import Audited, Told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.ledger.items import Effects, Finishing


def pack_effects(
    effects: Sequence[Effects | None], finishing: Finishing | None
) -> tuple[list[Any], list[Any]]:
    """Return the two arguments of `ledger_post` about payables, and those of `posting_effects` beside them.

    Each list has the order of the function's parameters.
    """
    payables: dict[UUID, int] = {}  # the place of each, from 1
    item_payable = [
        payables.setdefault(effect.payable, len(payables) + 1)
        if effect is not None and effect.payable is not None
        else 0
        for effect in effects
    ]
    settlers = [None if effect is None else effect.settler for effect in effects]
    some = bool(payables)
    return (
        [list(payables) if some else None, item_payable if some else None],
        [
            settlers if some else None,
            *_columns(Told, [() if effect is None else effect.told for effect in effects]),
            *_columns(Audited, [() if effect is None else effect.audited for effect in effects]),
            *(finishing or _FINISHES_NOTHING),
        ],
    )


_FINISHES_NOTHING = (None,) * 5


def _columns(kind: type[Told | Audited], of_items: Sequence[Sequence[Told | Audited]]) -> list[Any]:
    """Return an array for the item's place, one for new ids, and one for each field of `kind`; nulls without rows."""
    rows = [(place, ids.new_uuid(), *one) for place, some in enumerate(of_items, 1) for one in some]
    if tracing.active is not None:
        told = [one for some in of_items for one in some]
        for row, one in zip(rows, told, strict=True):
            tracing.active.note(row[1], getattr(one, "traceparent", None))
    return [list(column) for column in zip(*rows, strict=True)] if rows else [None] * (2 + len(kind._fields))
