"""The input and output of the ledger: postings, and the outcome of each."""

from __future__ import annotations

import hashlib
import itertools
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from asyncpg.pgproto import pgproto

from core.errors import Refusal
from core.ledger.outcomes import OUTCOMES, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

# The owner of the keys of the service's own postings. Principals of users and API keys have positive ids.
SYSTEM_PRINCIPAL: Final = 0

# Most of one call of the posting function: 10 bits number its items, 12 bits the legs (sql/functions/item_numbers.sql).
MAX_CALL_ITEMS = 1_000
MAX_CALL_LEGS = 4_000


class Operation(IntEnum):
    """The operations of `ledger_post`."""

    TRANSFER = 0
    HOLD = 1
    CAPTURE = 2
    VOID = 3
    EXTEND = 4
    EXPIRE = 5
    REVERSAL = 6


class Leg(NamedTuple):
    """An account, and the minor units that reach it (positive) or leave it (negative)."""

    account: str
    amount: int


class Condition(NamedTuple):
    """A condition of an item: the account's version and revision before it, and what it has after it in minor units.

    Available is the balance less what holds keep aside.
    """

    account: str
    version: int | None = None
    balance_at_least: int | None = None
    balance_at_most: int | None = None
    revision: int | None = None
    available_at_least: int | None = None
    available_at_most: int | None = None


class ItemLimits(NamedTuple):
    """Bounds on the money that leaves the account of an item's first leg, in minor units, beside the account's own.

    Only an account with windows counts what it sends within an hour and a UTC day.
    """

    transfer_max: int | None = None
    hour_amount_max: int | None = None
    hour_count_max: int | None = None
    day_amount_max: int | None = None


class Told(NamedTuple):
    """An event for the outbox, written only if the item is posted; see `core.outbox.events`."""

    principal_id: int
    event_type: str
    object_id: str | None
    body: bytes


class TracedTold(Told):
    """An event that was made while a trace was; `traceparent` is no column of it."""

    traceparent: str | None = None


class Audited(NamedTuple):
    """An audit record, written only if the item is posted. `actor`: user:<id>, admin, internal, system:<job>."""

    type: str
    actor: str
    user_id: UUID | None
    object_id: str | None
    data: str  # JSON


class Effects(NamedTuple):
    """The effects of an item beside its entries, in its transaction: see sql/functions/posting_effects.sql.

    The item pays `payable` for the user `settler`; `told` and `audited` are written if the item is posted.
    """

    payable: UUID | None = None
    settler: UUID | None = None
    told: tuple[Told, ...] = ()
    audited: tuple[Audited, ...] = ()


class Finishing(NamedTuple):
    """The events of a claim that a call finishes with its items (sql/functions/inbox_claims.sql).

    Event i is about the item at `items[i]`, counted from 1, and done if that is posted, now or before. An event without
    an item (0) has no effect, for the reason given. `ends` lets the claim end if all events are done.
    """

    claim: UUID
    events: Sequence[UUID]
    items: Sequence[int]
    reasons: Sequence[str | None]
    ends: bool


class Delivering(NamedTuple):
    """The leave to fan out events at once: where none waits from id `since` on, into the `room` of a sender.

    `room` has the arguments of `outbox_deliver` behind the events.
    """

    since: UUID
    room: Sequence[Any]


_encode = msgspec.json.Encoder().encode

# The parts of a body, in the order of the eight one-byte hashes that are kept to name a difference.
FIELDS = ("legs", "currency", "kind", "reference", "metadata", "effective_at", "conditions", "target")


class Posting(msgspec.Struct, eq=False):
    """One item for the ledger. `legs` sum to zero per currency; `group` > 0 makes contiguous items atomic.

    Captures and reversals carry the legs of the whole, `target_no` (the number of the hold or transfer), `target_id`
    and the `amount` that is due now (None: all that is left), in minor units of the leg `unit`, counted from 1. A void
    brings the legs of the whole, too. The target must have the revision `expected_revision`, where one is given: a
    hold's own, or the amount of a transfer that has been reversed. `expires_in_secs` is a span from the moment of the
    posting, by the database's clock, in place of `expires_at`. `id` is derived from owner and key, see `operation_id`.

    An administrator's reversal is `administered`: it may take money from a frozen account.

    `limits` and `effects` are those of the wallet platform. A refusal of an `unfrozen` item is not kept: its key is
    free for another try. A repeated call is compared by its `identity` alone, where one is given: the caller's own
    request, when the legs depend on a fee that may have changed since.
    """

    id: UUID
    principal_id: int
    legs: tuple[Leg, ...]
    operation: Operation = Operation.TRANSFER
    kind: str = "transfer"
    currency: str | None = None
    reference: str | None = None
    metadata: Mapping[str, str] | None = None
    effective_at: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    group: int = 0
    amount: int | None = None
    target_no: int | None = None
    target_id: UUID | None = None
    expires_at: datetime | None = None
    expires_in_secs: int | None = None
    unit: int = 1
    expected_revision: int | None = None
    administered: bool = False
    limits: ItemLimits | None = None
    effects: Effects | None = None
    unfrozen: bool = False
    identity: tuple[Any, ...] | None = None
    fingerprint: int = 0
    fields: int = 0

    def __post_init__(self) -> None:
        if self.operation == Operation.HOLD and any(leg.amount <= 0 for leg in self.legs[1:]):
            # A capture checks no limits, because the hold has checked them, and those of its source only.
            raise Refusal(
                "invalid_request",
                "A hold takes from its source alone, in the first leg; all other legs receive.",
            )
        self.fingerprint, self.fields = _fingerprint(self)


class EntryLine(NamedTuple):
    """One entry as an answer shows it: minor units, and the account's version and balance after it."""

    account: str
    amount: int
    version: int
    balance_after: int


class Outcome(msgspec.Struct, frozen=True):
    """The result of one posting.

    A posted one has `no`, `recorded_at`, `effective_at` if that is another time, and `entries` in the order of the
    legs; for holds also the `amount` of the
    operation, the amount `captured` since the hold's start, and its end `expires_at`. A refused one has the `account`
    that stood in the way and a `figure` (available, left or expected, by the kind). `replayed` tells that the key was
    used before, `wakes` that an event of the same call waits for the workers (`core.work.wakeup.OUTBOX`).
    """

    kind: OutcomeKind
    replayed: bool = False
    no: int = 0
    recorded_at: datetime | None = None
    effective_at: datetime | None = None
    entries: tuple[EntryLine, ...] = ()
    amount: int | None = None
    captured: int | None = None
    expires_at: datetime | None = None
    account: str | None = None
    figure: int | None = None
    differs: tuple[str, ...] = ()
    wakes: bool = False

    @property
    def posted(self) -> bool:
        """Whether the item was done, now or before under the same key."""
        return self.kind.number == 0

    def refusal(self) -> Refusal:
        """Return the exception that says this outcome to a caller of a single operation."""
        extra: dict[str, Any] = {}
        if self.account is not None:
            extra["account"] = self.account
        if self.differs:
            extra["differs"] = list(self.differs)
        refusal = Refusal(self.kind.code, sentence(self), **extra)
        refusal.replayed = self.replayed
        return refusal


def listed(names: Sequence[str]) -> str:
    """Return names in words: `legs`, `kind and legs`, `kind, legs and reference`."""
    *first, last = names or ("its content",)
    return f"{', '.join(first)} and {last}" if first else last


_SENTENCES: Mapping[str, str] = {
    "account_not_found": "Account {account!r} does not exist.",
    "account_closed": "Account {account!r} is closed.",
    "account_frozen": "Account {account!r} is frozen.",
    "legs_unbalanced": "The legs sum to {figure}, not to zero.",
    "period_closed": "The currency of account {account!r} is closed at this effective time.",
    "exceeds_hold": "Only {figure} is left.",
    "exceeds_reversible": "Only {figure} is left.",
    "version_mismatch": "Account {account!r} is at version {figure}, not at the expected one.",
    "revision_mismatch": "Account {account!r} is at revision {figure}, not at the expected one.",
    "balance_too_low": "The balance of account {account!r} would be {figure}, outside of the condition.",
    "balance_too_high": "The balance of account {account!r} would be {figure}, outside of the condition.",
    "available_too_low": "Account {account!r} would have {figure} available, outside of the condition.",
    "available_too_high": "Account {account!r} would have {figure} available, outside of the condition.",
    "insufficient_funds": "Account {account!r} has {figure} available, less than this takes.",
    "transfer_limit_exceeded": "Account {account!r} may send at most {figure} in one transfer.",
    "ceiling_exceeded": "Account {account!r} can take at most {figure} more.",
    "hourly_amount_exceeded": "Account {account!r} may send {figure} more in this window.",
    "daily_amount_exceeded": "Account {account!r} may send {figure} more in this window.",
}


def sentence(outcome: Outcome) -> str:
    """Return the cause in one sentence, with the figures; the same bytes for the same outcome, for ever."""
    account, figure, code = outcome.account, outcome.figure, outcome.kind.code
    if code == "idempotency_conflict":
        return (
            f"This idempotency key was used before for a request that differs in {listed(outcome.differs)}."
            " Use a new key."
        )
    if code == "hold_not_open" and figure is not None:
        return f"The hold was {('', 'captured in full', 'voided', 'expired')[figure]} before."
    text = _SENTENCES.get(code)
    if text is None or (account is None and code.startswith("account_")):
        return outcome.kind.meaning
    return text.format(account=account, figure=figure)


def operation_id(principal_id: int, key: str) -> UUID:
    """Derive the id of what a key makes: BLAKE2b-128 of owner and key, as a UUID of version 8 (RFC 9562).

    The id is known before anything is sent, so that a caller can ask for the answer after a lost connection.
    """
    digest = bytearray(hashlib.blake2b(b"%d\0%b" % (principal_id, key.encode()), digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return pgproto.UUID(bytes(digest))  # a uuid.UUID that is made, printed and sent in a tenth of the time


_groups = itertools.count(1)


def next_group() -> int:
    """Return a number for a group of items that no other group of this process has in the same call."""
    return next(_groups) % 2_000_000_000 + 1


def encode_metadata(metadata: Mapping[str, str]) -> str:
    """Return metadata as JSON text with sorted keys, so that the same metadata are the same bytes everywhere."""
    return _encode(dict(sorted(metadata.items()))).decode()


def refused(number: int, *, account: str | None = None, figure: int | None = None) -> Outcome:
    """Return the outcome of a posting that was refused before it was sent."""
    return Outcome(OUTCOMES[number], account=account, figure=figure)


def differing(stored_fields: int, given_fields: int) -> tuple[str, ...]:
    """Name the parts of the body whose hashes differ; the body as a whole when eight bytes cannot tell."""
    different = (stored_fields ^ given_fields) & 0xFFFF_FFFF_FFFF_FFFF
    names = tuple(name for place, name in enumerate(FIELDS) if different >> (8 * place) & 0xFF)
    return names or ("body",)


def _asked(condition: Condition) -> tuple[Any, ...]:
    """Return a condition as it has always been compared: with its later fields only where they are given."""
    later = condition[4:]
    return condition[:4] if later == (None, None, None) else tuple(condition)


def _fingerprint(posting: Posting) -> tuple[int, int]:
    parts: tuple[Any, ...] = (
        (posting.identity,)
        if posting.identity is not None
        else (
            # A void's further legs follow from its hold, and keys from before they were sent stay good.
            posting.legs[:1] if posting.operation is Operation.VOID else posting.legs,
            posting.currency,
            posting.kind,
            posting.reference,
            dict(sorted(posting.metadata.items())) if posting.metadata else None,
            posting.effective_at,
            [_asked(condition) for condition in posting.conditions] or None,
            (
                posting.operation,
                posting.target_id,
                posting.amount,
                posting.expires_in_secs or posting.expires_at,
            )
            if posting.operation
            else None,
        )
    )
    encoded = [_encode(part) if part is not None else b"" for part in parts]
    fields = 0
    for place, part in enumerate(encoded):
        if part:
            fields |= (zlib.crc32(part) & 0xFF) << (8 * place)
    digest = hashlib.blake2b(b"\0".join(encoded), digest_size=8).digest()
    if fields >= 2**63:
        fields -= 2**64
    return int.from_bytes(digest, "little", signed=True), fields
