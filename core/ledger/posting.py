"""Post a batch: pack the items into arrays, call `ledger_post` once, and read back the outcome of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from core import tracing
from core.arrays import numbers, texts, uuids
from core.database import queries
from core.ledger.effects import pack_effects
from core.ledger.items import (
    MAX_CALL_ITEMS,
    MAX_CALL_LEGS,
    Delivering,
    EntryLine,
    Finishing,
    ItemLimits,
    Outcome,
    Posting,
    differing,
    encode_metadata,
)
from core.ledger.outcomes import CONFLICT, OUTCOMES, POSTED, REPLAYED_POSTED, REPLAYED_REFUSED
from core.ledger.stored import load_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.database import Connection, Database, Row

SQL = queries(__name__)


async def post(
    source: Connection | Database,
    postings: Sequence[Posting],
    *,
    dry_run: bool = False,
    effective_span: EffectiveSpan | None = None,
) -> list[Outcome]:
    """Post up to 1,000 items of up to 4,000 legs, in order, and return the outcome of each.

    An item that takes effect outside of `effective_span` is refused; None: at any time.
    With a Connection the call is part of the caller's transaction and takes the same locks in the same order as any
    other posting; else it is a transaction of its own, in one round trip. A dry run writes nothing.
    """
    if not postings:
        return []
    packed = _pack(postings, None)
    if tracing.active is not None and packed.effects is not None and not dry_run:
        await tracing.active.keep_noted()
    # The bounds are sent where an item has an effective time, so that all other calls send a null.
    packed.extras.append(effective_span if packed.has_effective_times else None)
    if packed.effects is None or dry_run:
        row = await source.fetchrow(SQL.post, *packed.arguments, dry_run, *packed.extras)
    else:
        row = await source.fetchrow(
            SQL.post_with_effects, *packed.arguments, dry_run, *packed.extras, *packed.effects
        )
    if row is None:
        raise RuntimeError("ledger_post returned no row")
    outcomes = _read(
        postings, packed, row, wakes=packed.effects is not None and not dry_run and row["due"] > 0
    )
    return await _with_replays(source, postings, outcomes)


async def post_and_finish(
    database: Database, postings: Sequence[Posting], finishing: Finishing, delivering: Delivering | None
) -> tuple[list[Outcome], list[Row]]:
    """Post items as `post` does, in the one transaction that finishes events and may be `delivering` what it tells.

    Return the outcomes, and the rows of `outbox_deliver`. Raises ClaimGoneError when the claim is another worker's.
    """
    packed = _pack(postings, finishing)
    if tracing.active is not None:
        await tracing.active.keep_noted()
    arguments = [*packed.arguments, False, *packed.extras, None, *(packed.effects or ())]
    if delivering is None:
        rows = await database.fetch(SQL.post_with_effects, *arguments)
    else:
        rows = await database.fetch(SQL.post_and_deliver, *arguments, delivering.since, *delivering.room)
    row, *delivered = rows
    outcomes = _read(postings, packed, row, wakes=row["due"] > 0)
    return await _with_replays(database, postings, outcomes), delivered


class EffectiveSpan(NamedTuple):
    """How far an effective time may lie from the moment of the posting, in days."""

    days_back: int
    days_ahead: int


class _Packed(NamedTuple):
    """The arguments of one call, and what is needed to read its result."""

    arguments: list[Any]
    extras: list[Any]
    effects: list[Any] | None
    first_leg: list[int]
    leg_codes: list[str]
    condition_codes: list[str]
    has_effective_times: bool

    def culprit(self, place: int) -> str | None:
        """Name the account that stood in the way: a leg's (positive place), or a condition's (negative)."""
        if place > 0:
            return self.leg_codes[place - 1]
        return self.condition_codes[-place - 1] if place < 0 else None


def _pack(postings: Sequence[Posting], finishing: Finishing | None) -> _Packed:
    if len(postings) > MAX_CALL_ITEMS or sum([len(posting.legs) for posting in postings]) > MAX_CALL_LEGS:
        raise ValueError("more than one call of ledger_post takes")
    places: dict[str, int] = {}  # the place of each account's code, from 1
    place_of = places.setdefault
    first_leg: list[int] = []
    last_leg: list[int] = []
    leg_codes: list[str] = []
    leg_account: list[int] = []
    leg_amount: list[int] = []
    for posting in postings:
        first_leg.append(len(leg_codes) + 1)
        for code, amount in posting.legs:
            leg_codes.append(code)
            leg_account.append(place_of(code, len(places) + 1))
            leg_amount.append(amount)
        last_leg.append(len(leg_codes))
    conditions, more_conditions = _conditions(postings, place_of, places)
    targets = sorted({posting.target_no for posting in postings if posting.target_no is not None})
    target_places = {no: place for place, no in enumerate(targets, 1)}
    arguments: list[Any] = [
        uuids([posting.id for posting in postings]),
        numbers([int(posting.operation) for posting in postings]),
        numbers([posting.fingerprint for posting in postings]),
        numbers([posting.fields for posting in postings]),
        numbers([posting.principal_id for posting in postings]),
        texts([posting.kind for posting in postings]),
        numbers(first_leg),
        numbers(last_leg),
        texts(places),
        numbers(leg_account),
        numbers(leg_amount),
        _twins(postings),
        _rare([posting.group for posting in postings], absent=0),
        _rare([posting.amount for posting in postings]),
        targets or None,
        [target_places.get(posting.target_no, 0) for posting in postings] if targets else None,  # type: ignore[arg-type] # None is in no place
        _rare([posting.currency for posting in postings]),
        _rare([posting.reference for posting in postings]),
        _rare([encode_metadata(posting.metadata) if posting.metadata else None for posting in postings]),
        (effective_times := _rare([posting.effective_at for posting in postings])),
        _rare([posting.expires_at for posting in postings]),
        *conditions,
    ]
    condition_codes = [condition.account for posting in postings for condition in posting.conditions]
    effects = [posting.effects for posting in postings]
    plain = finishing is None and effects.count(None) == len(effects)
    extras, told = (_NO_PAYABLES, None) if plain else pack_effects(effects, finishing)
    extras = [
        *extras,
        _limits(postings),
        _rare([posting.unfrozen for posting in postings], absent=False),
        *more_conditions,
        *_of_targets(postings, targets),
        _rare([posting.expires_in_secs for posting in postings]),
    ]
    return _Packed(
        arguments, extras, told, first_leg, leg_codes, condition_codes, effective_times is not None
    )


_NO_PAYABLES: list[Any] = [None, None]


def _of_targets(postings: Sequence[Posting], targets: list[int]) -> list[list[Any] | None]:
    """Return what only items with a target have: the expected revision, the unit, and whether it is administered."""
    if not targets:
        return [None, None, None]
    return [
        _rare([posting.expected_revision for posting in postings]),
        _rare([posting.unit for posting in postings], absent=1),
        _rare([posting.administered for posting in postings], absent=False),
    ]


def _limits(postings: Sequence[Posting]) -> list[int | None] | None:
    """Return four limits an item, or None when no item has any."""
    if not any(posting.limits for posting in postings):
        return None
    return [limit for posting in postings for limit in posting.limits or _UNLIMITED]


_UNLIMITED = ItemLimits()


def _rare(values: list[Any], *, absent: Any = None) -> list[Any] | None:
    """Return an array of values that few items have, or None when no item has one: nothing is then sent."""
    return values if values.count(absent) < len(values) else None


def _twins(postings: Sequence[Posting]) -> list[int] | None:
    """Point each item to the one before it with the same key, 0 for none."""
    last: dict[object, int] = {}
    twins = []
    for place, posting in enumerate(postings, 1):
        twins.append(last.get(posting.id, 0))
        last[posting.id] = place
    return twins if len(last) < len(postings) else None


def _conditions(
    postings: Sequence[Posting], place_of: Callable[[str, int], int], places: Mapping[str, int]
) -> tuple[list[list[Any] | None], list[list[Any] | None]]:
    """Return the five arrays of conditions among the function's first parameters, and the three among its last."""
    rows = [
        (place, place_of(condition.account, len(places) + 1), *condition[1:])
        for place, posting in enumerate(postings, 1)
        for condition in posting.conditions
    ]
    if not rows:
        return [None] * 5, [None] * 3
    columns: list[list[Any] | None] = [list(column) for column in zip(*rows, strict=True)]
    return columns[:5], columns[5:]


def _read(postings: Sequence[Posting], packed: _Packed, row: Row, *, wakes: bool) -> list[Outcome | None]:
    """Read the outcomes; None stands where the stored answer of the key has to be loaded."""
    kinds, culprits, figures = row["outcomes"], row["culprits"], row["figures"]
    versions, balances, posted = row["leg_version"], row["leg_balance"], row["leg_posted"]
    amounts, captured, expires = row["item_amount"], row["item_captured"], row["item_expires"]
    effective = row["item_effective"]
    recorded, batch = row["recorded"], row["batch"] or 0
    codes = packed.leg_codes
    outcomes: list[Outcome | None] = []
    for place, posting in enumerate(postings):
        number = kinds[place]
        if number == POSTED:
            start = packed.first_leg[place] - 1
            entries = tuple(
                [
                    EntryLine(codes[leg], posted[leg], versions[leg], balances[leg])
                    for leg in range(start, start + len(posting.legs))
                    if versions[leg]
                ]
            )
            outcomes.append(
                Outcome(
                    OUTCOMES[POSTED],
                    no=(batch << 22) + ((place + 1) << 12),
                    recorded_at=recorded,
                    effective_at=effective[place] if effective else None,
                    entries=entries,
                    amount=amounts[place],
                    captured=captured[place],
                    expires_at=expires[place] if expires else None,
                    wakes=wakes,
                )
            )
        elif number in (REPLAYED_POSTED, REPLAYED_REFUSED):
            outcomes.append(None)
        elif number == CONFLICT:
            outcomes.append(Outcome(OUTCOMES[CONFLICT], differs=differing(figures[place], posting.fields)))
        else:
            outcomes.append(
                Outcome(
                    OUTCOMES[number],
                    account=packed.culprit(culprits[place]),
                    figure=figures[place],
                )
            )
    return outcomes


async def _with_replays(
    source: Connection | Database, postings: Sequence[Posting], outcomes: list[Outcome | None]
) -> list[Outcome]:
    wanted = [posting.id for posting, outcome in zip(postings, outcomes, strict=True) if outcome is None]
    known = await load_outcomes(source, wanted) if wanted else {}
    answers = []
    for posting, outcome in zip(postings, outcomes, strict=True):
        if outcome is not None:
            answers.append(outcome)
            if wanted and outcome.kind.freezes:
                # A dry run stores nothing, so twins in it repeat this outcome.
                known.setdefault(posting.id, msgspec.structs.replace(outcome, replayed=True))
        else:
            answers.append(known[posting.id])
    return answers
