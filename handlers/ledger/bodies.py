"""What the ledger's routes take: the types of their bodies, and the postings that are made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, field

from core.errors import Refusal
from core.ledger.items import MAX_CALL_LEGS, Condition, Leg, Operation, Posting, operation_id
from core.money import MAX_AMOUNT_MINOR

ACCOUNT_CODE = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$"
MAX_BATCH_ITEMS = 5_000
MAX_BATCH_LEGS = 20_000
# Holds for longer than this are a debt, not a reservation.
MAX_HOLD_SECONDS = 366 * 24 * 3600

AccountCode = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=ACCOUNT_CODE, description="The account's own code.")
]
Amount = Annotated[
    int, Meta(ge=1, le=MAX_AMOUNT_MINOR, description="In the minor unit of the currency; an integer.")
]
SignedAmount = Annotated[
    int,
    Meta(
        ge=-MAX_AMOUNT_MINOR,
        le=MAX_AMOUNT_MINOR,
        description="In the minor unit; positive: the account receives. Not zero.",
    ),
]
Balance = Annotated[int, Meta(ge=-MAX_AMOUNT_MINOR, le=MAX_AMOUNT_MINOR)]
Currency = Annotated[
    str,
    Meta(pattern=r"^[A-Z][A-Z0-9]{2,11}$", description="ISO 4217, or 3 to 12 upper-case letters and digits."),
]
Kind = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Reference = Annotated[str, Meta(min_length=1, max_length=255)]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40)], Annotated[str, Meta(max_length=500)]],
    Meta(max_length=50, description="Up to 50 texts of your own, found again with `?metadata=name:value`."),
]
Time = Annotated[datetime, Meta(tz=True)]
Key = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


class LegBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One leg of a transfer."""

    account: AccountCode
    amount: SignedAmount


class ConditionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold for the transfer to be done: the version before it, the balance after it."""

    account: AccountCode
    version: Annotated[int, Meta(ge=0, le=MAX_AMOUNT_MINOR)] | None = None
    balance_at_least: Balance | None = None
    balance_at_most: Balance | None = None


class Movement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where to where: `from`, `to` and `amount`, or `legs`."""

    from_: AccountCode | None = field(name="from", default=None)
    to: AccountCode | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    legs: Annotated[tuple[LegBody, ...], Meta(min_length=2, max_length=MAX_CALL_LEGS)] | None = None
    kind: Kind = "transfer"
    reference: Reference | None = None
    metadata: Metadata | None = None
    conditions: Annotated[tuple[ConditionBody, ...], Meta(max_length=100)] = ()


class TransferBody(Movement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer: `from`, `to` and `amount`, or `legs` that sum to zero in each currency."""

    effective_at: Time | None = None
    dry_run: bool = False


class BatchItem(Movement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer of a batch, with its own key. Neighbours with the same `group` are done together or not at all."""

    key: Key
    group: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    effective_at: Time | None = None


class BatchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 5,000 transfers, done in order, each with its own outcome."""

    transfers: Annotated[tuple[BatchItem, ...], Meta(min_length=1, max_length=MAX_BATCH_ITEMS)]
    dry_run: bool = False


class ReversalBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a transfer to give back: minor units of its first leg; all that is left when absent."""

    amount: Amount | None = None
    kind: Kind = "reversal"
    reference: Reference | None = None
    metadata: Metadata | None = None
    effective_at: Time | None = None


class HoldBody(Movement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hold: `from`, `to` and `amount`, or `legs` of which the first is the source's.

    It ends by itself after `expires_in` seconds or at `expires_at`, or never.
    """

    expires_in: Annotated[int, Meta(ge=1, le=MAX_HOLD_SECONDS, description="Seconds.")] | None = None
    expires_at: Time | None = None


class CaptureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a hold to take: all that remains when absent. What remains after it stays held."""

    amount: Amount | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


class VoidBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: an empty object, or no body at all."""


class ExtendBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hold's new end: in seconds from now, or a time."""

    expires_in: Annotated[int, Meta(ge=1, le=MAX_HOLD_SECONDS, description="Seconds.")] | None = None
    expires_at: Time | None = None


def transfer_posting(
    principal_id: int, key: str, body: TransferBody | BatchItem, *, group: int = 0, subject: str = ""
) -> Posting:
    """Return the posting of a transfer; raises Refusal `invalid_request`, naming `subject`."""
    return Posting(
        id=operation_id(principal_id, key),
        principal_id=principal_id,
        legs=_legs(body, subject),
        kind=body.kind,
        currency=body.currency,
        reference=body.reference,
        metadata=body.metadata or None,
        effective_at=moment(body.effective_at),
        conditions=_conditions(body),
        group=group,
    )


def hold_posting(principal_id: int, key: str, body: HoldBody) -> Posting:
    """Return the posting of a hold; raises Refusal `invalid_request`."""
    legs = _legs(body, "")
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
        kind=body.kind,
        currency=body.currency,
        reference=body.reference,
        metadata=body.metadata or None,
        conditions=_conditions(body),
        expires_at=expiry(body),
        expires_in_secs=body.expires_in,
    )


def moment(time: datetime | None) -> datetime | None:
    """Return the same time in UTC; raises Refusal `invalid_request` at the ends of the calendar."""
    if time is None:
        return None
    if not 1 < time.year < 9999:  # its offset might carry it out of what Python can hold
        raise Refusal("invalid_request", "A time must lie within the years 2 to 9998.")
    return time.astimezone(UTC)


def expiry(body: HoldBody | ExtendBody) -> datetime | None:
    """Return when a hold ends; raises Refusal `invalid_request` for two ends, and for one too far ahead.

    A time that is over is not refused, since a call may be repeated after it: such a hold ends at once.
    """
    now = datetime.now(UTC)
    if body.expires_in is not None:
        if body.expires_at is not None:
            raise Refusal("invalid_request", "Give expires_in or expires_at, not both.")
        return now + timedelta(seconds=body.expires_in)
    end = moment(body.expires_at)
    if end is not None and end > now + timedelta(seconds=MAX_HOLD_SECONDS):
        raise Refusal("invalid_request", "A hold ends within 366 days.")
    return end


def _conditions(body: Movement) -> tuple[Condition, ...]:
    if not body.conditions:
        return ()
    return tuple(
        Condition(each.account, each.version, each.balance_at_least, each.balance_at_most)
        for each in body.conditions
    )


def _legs(body: Movement, subject: str) -> tuple[Leg, ...]:
    if body.legs is None:
        if body.from_ is None or body.to is None or body.amount is None:
            raise Refusal("invalid_request", f"{subject}Give `from`, `to` and `amount`, or `legs`.")
        if body.from_ == body.to:
            raise Refusal("invalid_request", f"{subject}`from` and `to` are the same account.")
        return Leg(body.from_, -body.amount), Leg(body.to, body.amount)
    if body.from_ is not None or body.to is not None or body.amount is not None:
        raise Refusal("invalid_request", f"{subject}Give `from`, `to` and `amount`, or `legs`, not both.")
    if any(leg.amount == 0 for leg in body.legs):
        raise Refusal("invalid_request", f"{subject}A leg's amount is not zero.")
    if sum(abs(leg.amount) for leg in body.legs) > 2 * MAX_AMOUNT_MINOR:
        raise Refusal("invalid_request", f"{subject}The legs move more than {MAX_AMOUNT_MINOR} in all.")
    return tuple(Leg(leg.account, leg.amount) for leg in body.legs)
