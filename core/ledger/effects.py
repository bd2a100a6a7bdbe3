"""What comes with postings in their transaction: payables that are paid, events that tell of it, the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.ledger.items import Effects


def pack_effects(effects: Sequence[Effects | None]) -> tuple[list[Any], list[Any]]:
    """Return the two arguments of `ledger_post` about payables, and all that `posting_effects` takes beside them."""
    payables: dict[UUID, int] = {}  # places, from 1
    item_payable = [
        payables.setdefault(effect.payable, len(payables) + 1)
        if effect is not None and effect.payable is not None
        else 0
        for effect in effects
    ]
    settlers = [None if effect is None else effect.settler for effect in effects]
    told = [
        (place, ids.new_uuid(), *one)
        for place, effect in enumerate(effects, 1)
        if effect is not None
        for one in effect.told
    ]
    audited = [
        (place, ids.new_uuid(), *one)
        for place, effect in enumerate(effects, 1)
        if effect is not None
        for one in effect.audited
    ]
    events = [list(column) for column in zip(*told, strict=True)] if told else [None] * 6
    # (place, id, principal, type, body, object) as the function takes them
    events = [*events[:4], events[5], events[4]]
    audit = [list(column) for column in zip(*audited, strict=True)] if audited else [None] * 7
    some = bool(payables)
    return (
        [list(payables) if some else None, item_payable if some else None],
        [settlers if some else None, *events, *audit],
    )
