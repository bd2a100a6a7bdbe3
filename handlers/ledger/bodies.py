"""The types of the bodies that the ledger's routes take."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, field

from core.ledger.items import MAX_CALL_LEGS, Condition, Leg
from core.ledger.movements import MAX_BATCH_ITEMS, MAX_HOLD_SECONDS, Movement
from core.money import MAX_AMOUNT_MINOR
from handlers.http.times import Time

# Characters of a name of metadata, and of its value.
MAX_NAME = 40
MAX_VALUE = 500

ACCOUNT_CODE = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$"

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
    dict[Annotated[str, Meta(min_length=1, max_length=MAX_NAME)], Annotated[str, Meta(max_length=MAX_VALUE)]],
    Meta(
        max_length=50,
        description="Up to 50 texts of your own. Transfers are found by them: `GET /v1/transfers?metadata=name:value`.",
    ),
]
MetadataChange = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40)], Annotated[str, Meta(max_length=500)] | None],
    Meta(max_length=100, description="Merged with what is there; null removes a name."),
]
Key = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


class LegBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One leg of a transfer."""

    account: AccountCode
    amount: SignedAmount


class ConditionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition for the transfer: the account's version or revision before it, its balance or available after it."""

    account: AccountCode
    version: Annotated[int, Meta(ge=0, le=MAX_AMOUNT_MINOR)] | None = None
    balance_at_least: Balance | None = None
    balance_at_most: Balance | None = None
    revision: Annotated[int, Meta(ge=0, le=MAX_AMOUNT_MINOR)] | None = None
    available_at_least: Balance | None = None
    available_at_most: Balance | None = None


class MovementBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A movement of money: `from`, `to` and `amount`, or `legs`."""

    from_: AccountCode | None = field(name="from", default=None)
    to: AccountCode | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    legs: Annotated[tuple[LegBody, ...], Meta(min_length=2, max_length=MAX_CALL_LEGS)] | None = None
    kind: Kind = "transfer"
    reference: Reference | None = None
    metadata: Metadata | None = None
    conditions: Annotated[tuple[ConditionBody, ...], Meta(max_length=100)] = ()


class TransferBody(MovementBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer: `from`, `to` and `amount`, or `legs` that sum to zero in each currency."""

    effective_at: Time | None = None
    dry_run: bool = False


class BatchItem(MovementBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer of a batch, with its own key. Neighbours with the same `group` are done together or not at all."""

    key: Key
    group: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    effective_at: Time | None = None


class BatchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 5,000 transfers, done in order, each with its own outcome."""

    transfers: Annotated[tuple[BatchItem, ...], Meta(min_length=1, max_length=MAX_BATCH_ITEMS)]
    dry_run: bool = False


class ReversalBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a transfer to give back, in minor units of its largest leg; all that is left when absent."""

    amount: Amount | None = None
    kind: Kind = "reversal"
    reference: Reference | None = None
    metadata: Metadata | None = None
    effective_at: Time | None = None


class HoldBody(MovementBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hold: `from`, `to` and `amount`, or `legs` of which the first is the source's.

    The hold ends by itself after `expires_in` seconds or at `expires_at`, or never.
    """

    expires_in: Annotated[int, Meta(ge=1, le=MAX_HOLD_SECONDS, description="Seconds.")] | None = None
    expires_at: Time | None = None


class CaptureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a hold to take, in minor units; all that remains when absent. The rest stays held."""

    amount: Amount | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


class VoidBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object, or no body at all."""


class ExtendBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hold's new end, in seconds from now or as a time."""

    expires_in: Annotated[int, Meta(ge=1, le=MAX_HOLD_SECONDS, description="Seconds.")] | None = None
    expires_at: Time | None = None


def movement(body: TransferBody | BatchItem | HoldBody) -> Movement:
    """Return the movement that a body asks for. `core.ledger.movements` checks it."""
    return Movement(
        source=body.from_,
        target=body.to,
        amount=body.amount,
        legs=None if body.legs is None else [Leg(leg.account, leg.amount) for leg in body.legs],
        currency=body.currency,
        kind=body.kind,
        reference=body.reference,
        metadata=body.metadata,
        conditions=tuple([Condition(*msgspec.structs.astuple(each)) for each in body.conditions]),
        effective_at=None if isinstance(body, HoldBody) else body.effective_at,
    )
