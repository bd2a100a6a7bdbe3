"""Movements of money as callers of every surface ask for them, and the postings that are made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from core.errors import Refusal
from core.ledger.items import (
    MAX_CALL_ITEMS,
    MAX_CALL_LEGS,
    Condition,
    Leg,
    Operation,
    Posting,
    next_group,
    operation_id,
)
from core.money import MAX_AMOUNT_MINOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BATCH_ITEMS: Final = 5_000
MAX_BATCH_LEGS: Final = 20_000
# Holds for longer than this are a debt, not a reservation.
MAX_HOLD_SECONDS: Final = 366 * 24 * 3600


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """Money that a caller wants moved: `source`, `target` and `amount` (minor units, positive), or `legs`."""

    source: str | None = None
    target: str | None = None
    amount: int | None = None
    legs: Sequence[Leg] | None = None
    currency: str | None = None
    kind: str = "transfer"
    reference: str | None = None
    metadata: Mapping[str, str] | None = None
    conditions: tuple[Condition, ...] = ()
    effective_at: datetime | None = None


class BatchPart(NamedTuple):
    """A movement of a batch with its own key. Neighbours with the same `group` are done together or not at all."""

    key: str
    movement: Movement
    group: str | None = None


def transfer(
    principal_id: int, key: str, movement: Movement, *, group: int = 0, subject: str = ""
) -> Posting:
    """Return the posting of a transfer; raises Refusal `invalid_request`, naming `subject`."""
    return Posting(
        id=operation_id(principal_id, key),
        principal_id=principal_id,
        legs=_legs(movement, subject),
        kind=movement.kind,
        currency=movement.currency,
        reference=movement.reference,
        metadata=movement.metadata or None,
        effective_at=moment(movement.effective_at),
        conditions=movement.conditions,
        group=group,
    )


def hold(
    principal_id: int,
    key: str,
    movement: Movement,
    *,
    expires_at: datetime | None = None,
    expires_in_secs: int | None = None,
) -> Posting:
    """Return the posting of a hold; raises Refusal `invalid_request`, also for its end (see `hold_end`)."""
    legs = _legs(movement, "")
    if legs[0].amount > 0:
        raise Refusal(
            "invalid_request", "The first leg of a hold is its source's, so its amount is negative."
        )
    if any(leg.account == legs[0].account for leg in legs[1:]):
        raise Refusal("invalid_request", "The source of a hold has one leg only, the first.")
    return Posting(
        id=operation_id(principal_id, key),
        principal_id=principal_id,
        legs=legs,
        operation=Operation.HOLD,
        kind=movement.kind,
        currency=movement.currency,
        reference=movement.reference,
        metadata=movement.metadata or None,
        conditions=movement.conditions,
        expires_at=hold_end(expires_at, expires_in_secs),
        expires_in_secs=expires_in_secs,
    )


def batch(principal_id: int, parts: Sequence[BatchPart]) -> list[Posting]:
    """Return the postings of a batch, in order.

    Raises Refusal `invalid_request` for a group that is torn apart or too large for one call, for too many legs, and
    for a part that is no transfer.
    """
    postings: list[Posting] = []
    group, number, items, size, total = None, 0, 0, 0, 0
    seen: set[str] = set()
    for place, part in enumerate(parts):
        if part.group != group:
            group, number, items, size = part.group, next_group() if part.group is not None else 0, 0, 0
            if group in seen:
                raise Refusal(
                    "invalid_request", f"Item {place}: the items of group {group!r} do not follow each other."
                )
            if group is not None:
                seen.add(group)
        posting = transfer(principal_id, part.key, part.movement, group=number, subject=f"Item {place}: ")
        legs = len(posting.legs) + len(posting.conditions)
        items, size, total = items + 1, size + legs, total + legs
        if number and (items > MAX_CALL_ITEMS or size > MAX_CALL_LEGS):
            raise Refusal(
                "invalid_request",
                f"Group {group!r} has more than {MAX_CALL_ITEMS} items or {MAX_CALL_LEGS} legs and conditions.",
            )
        postings.append(posting)
    if total > MAX_BATCH_LEGS:
        raise Refusal(
            "invalid_request",
            f"A batch has at most {MAX_BATCH_LEGS} legs and conditions; this one has {total}.",
        )
    return postings


def moment(time: datetime | None) -> datetime | None:
    """Return the same time in UTC; raises Refusal `invalid_request` at the ends of the calendar."""
    if time is None:
        return None
    if not 1 < time.year < 9999:  # an offset may carry the time out of Python's range
        raise Refusal("invalid_request", "A time must lie within the years 2 to 9998.")
    return time.astimezone(UTC)


def hold_end(expires_at: datetime | None, expires_in_secs: int | None) -> datetime | None:
    """Return when a hold ends, None for a span: the database's clock decides when that ends.

    A time that is over is not refused, since a call may be repeated after it: such a hold ends at once. Raises Refusal
    `invalid_request` for two ends, and for one too far ahead; that bound alone goes by this process's clock.
    """
    if expires_in_secs is not None:
        if expires_at is not None:
            raise Refusal("invalid_request", "Give expires_in or expires_at, not both.")
        return None
    end = moment(expires_at)
    if end is not None and end > datetime.now(UTC) + timedelta(seconds=MAX_HOLD_SECONDS):
        raise Refusal("invalid_request", "A hold must end within 366 days.")
    return end


def new_hold_end(expires_at: datetime | None, expires_in_secs: int | None) -> datetime | None:
    """Return the end that a hold is moved to, None for a span; raises like `hold_end`, and where no end is given."""
    end = hold_end(expires_at, expires_in_secs)
    if end is None and expires_in_secs is None:
        raise Refusal("invalid_request", "Give expires_in or expires_at.")
    return end


def _legs(movement: Movement, subject: str) -> tuple[Leg, ...]:
    source, target, amount, legs = movement.source, movement.target, movement.amount, movement.legs
    if legs is None:
        if source is None or target is None or amount is None:
            raise Refusal("invalid_request", f"{subject}Give `from`, `to` and `amount`, or `legs`.")
        if source == target:
            raise Refusal("invalid_request", f"{subject}`from` and `to` are the same account.")
        return Leg(source, -amount), Leg(target, amount)
    if source is not None or target is not None or amount is not None:
        raise Refusal("invalid_request", f"{subject}Give `from`, `to` and `amount`, or `legs`, not both.")
    if any(leg.amount == 0 for leg in legs):
        raise Refusal("invalid_request", f"{subject}The amount of a leg must not be zero.")
    if len({leg.account for leg in legs}) == 1:
        raise Refusal("invalid_request", f"{subject}All legs are of the same account.")
    if sum(abs(leg.amount) for leg in legs) > 2 * MAX_AMOUNT_MINOR:
        raise Refusal("invalid_request", f"{subject}The legs move more than {MAX_AMOUNT_MINOR} in all.")
    return tuple(legs)
