"""Payables: QR codes, links, requests, invoices, cash requests, vouchers. One table and state machine for all.

open -> paid | canceled | rejected | expired, and nothing else; a reusable payable stays open when it is paid. Paying
and every other end lock the row (sql/functions/ledger_post.sql), so exactly one of them wins.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import unicodedata
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from core import ids
from core.database import queries
from core.errors import Refusal
from core.ledger.items import operation_id
from core.lookup import Lookup
from core.payables.kinds import Collects, Kind, Order
from core.wallets import names
from core.wallets.users import User

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from core.database import Connection, Database, Row

_sql = queries(__name__)

State = Literal["open", "paid", "canceled", "rejected", "expired"]
# 192 bits: nobody guesses a code, and the contract's clients expect its 32 characters.
CODE_BYTES: Final = 24
# Format characters that letters need (Persian, Indic scripts): zero-width non-joiner and joiner.
_JOINERS: Final = frozenset("\u200c\u200d")
# Values of `collects` in the details of a request or an invoice, which replace the payee rule of the kind.
MERCHANT: Final = "merchant"
ANYBODY: Final = "anybody"


class Purpose(NamedTuple):
    """The words for what a payable is for, and the payee's own order number; either may be missing."""

    description: str | None = None
    reference: str | None = None

    @classmethod
    def of(cls, description: str | None, reference: str | None) -> Purpose:
        """Return a purpose of two texts as they were typed; an empty one is none."""
        return cls(one_line(description or "") or None, one_line(reference or "") or None)

    def details(self) -> dict[str, str]:
        """Return the part of a payable's details that holds the purpose, in the names that invoices use, too."""
        return {name: text for name, text in self._asdict().items() if text is not None}


NO_PURPOSE: Final = Purpose()


class Payable(NamedTuple):
    """A payable as stored, in minor units; `state` is `expired` as soon as its time is over, marked or not."""

    id: UUID
    kind: Kind
    code: str | None
    payee_id: UUID | None
    payer_id: UUID | None
    amount: int | None
    currency: str
    reusable: bool
    state: State
    expires_at: datetime | None
    due_at: datetime | None
    details: dict[str, Any]
    transfer_id: UUID | None
    hold_id: UUID | None
    settled_by: UUID | None
    created_at: datetime
    updated_at: datetime
    fingerprint: int | None

    @property
    def purpose(self) -> Purpose:
        """The purpose, empty for a payable without one."""
        return Purpose(self.details.get("description"), self.details.get("reference"))


def one_line(text: str) -> str:
    """Return a text without what is not seen: control characters, and marks that turn the text of others around."""
    if not names.is_seen(text):
        return ""
    seen = (" " if character.isspace() else character for character in text)
    return "".join(c for c in seen if c in _JOINERS or unicodedata.category(c) not in {"Cc", "Cf"}).strip()


def with_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the details of a request: its metadata as a text, since jsonb would sort its names."""
    text = None if metadata is None else json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    return {"metadata": text}


def metadata_of(payable: Payable) -> dict[str, Any] | None:
    """Return a request's metadata, its names in the order in which they were given."""
    found = payable.details.get("metadata")
    metadata: dict[str, Any] | None = msgspec.json.decode(found) if isinstance(found, str) else found
    return metadata


def payable_of(row: Row) -> Payable:
    """Read a payable out of a row that has the columns of one, and `expired`."""
    return _payable([row[name] for name in Payable._fields], expired=row["expired"])


def _payable(values: Sequence[Any], *, expired: bool) -> Payable:
    payable = Payable(*values)
    stored: Any = payable.details
    state: State = "expired" if expired else payable.state
    return payable._replace(details=msgspec.json.decode(stored), state=state)


class ToPay(NamedTuple):
    """A payable and its payee, None for a voucher or a cash-out, whose payee is not known yet."""

    payable: Payable
    payee: User | None

    def order(
        self, payer: User, payee: User, amount: int | None, identity: tuple[Any, ...], object_id: str | None
    ) -> Order:
        """Return the order of `payer`; `amount` in minor units counts where the payable leaves it to the payer."""
        payable = self.payable
        collects = payable.details.get("collects")
        return Order(
            payable.kind,
            payer,
            payee,
            amount if payable.amount is None else payable.amount,
            payable.currency,
            identity,
            payer=payer,
            payable_id=payable.id,
            state=payable.state,
            collects=None if collects is None else Collects(merchant=collects == MERCHANT),
            object_id=object_id,
        )


class Paying(NamedTuple):
    """A payer and the payable to pay, None for an unknown code."""

    payer: User
    to_pay: ToPay | None


# Rows are read by place: reading each column by its name would be half of the work.
_USER, _PAYABLE = len(User._fields), len(Payable._fields)


def to_pay_of(row: Row) -> ToPay:
    """Read a payable and its payee out of a row of `payables_to_pay`: place, payable, expired, payee."""
    return _to_pay(row[1:])


def paying_of(row: Row) -> Paying:
    """Read a payer and a payable out of a row of `payers_and_payables`: place, user, and as `to_pay_of`."""
    columns: Sequence[Any] = row[1:]
    payer, rest = User(*columns[:_USER]), columns[_USER:]
    return Paying(payer, None if rest[0] is None else _to_pay(rest))


def _to_pay(columns: Sequence[Any]) -> ToPay:
    payable = _payable(columns[:_PAYABLE], expired=columns[_PAYABLE])
    return ToPay(payable, None if payable.payee_id is None else User(*columns[_PAYABLE + 1 :]))


class NewPayable(NamedTuple):
    """A payable to store: payee, payer or both are known; the amount is in minor units (None: the payer decides).

    `life` and `due_in` are spans from its creation by the database's clock, in place of `expires_at` and `due_at`.
    """

    kind: Kind
    currency: str
    payee_id: UUID | None = None
    payer_id: UUID | None = None
    amount: int | None = None
    code: str | None = None
    reusable: bool = False
    expires_at: datetime | None = None
    due_at: datetime | None = None
    details: Mapping[str, Any] = {}
    hold_id: UUID | None = None
    life: timedelta | None = None
    due_in: timedelta | None = None
    agent_id: UUID | None = None


class RequestKey(NamedTuple):
    """The idempotency key of a creation: its principal, its text, and the terms that were asked for."""

    principal_id: int
    key: str
    asked: tuple[Any, ...]

    @property
    def id(self) -> UUID:
        """The id under which the key is stored; see `operation_id`."""
        return operation_id(self.principal_id, self.key)

    @property
    def fingerprint(self) -> int:
        """A hash of the terms."""
        return fingerprint_of(self.asked)


def fingerprint_of(asked: tuple[Any, ...]) -> int:
    """Return 63 bits of BLAKE2b over the terms: equal for an equal repetition."""
    digest = hashlib.blake2b(msgspec.json.encode(asked), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Payables:
    """A reader of payables by id or code, which reads for many callers in one statement."""

    def __init__(self, database: Database) -> None:
        self._lookup: Lookup[Payable] = Lookup(database, _sql.payables_wanted, payable_of)
        self._to_pay: Lookup[ToPay] = Lookup(database, _sql.payables_to_pay, to_pay_of)
        self._paying: Lookup[Paying] = Lookup(database, _sql.payers_and_payables, paying_of)

    async def by_id(self, payable_id: UUID) -> Payable | None:
        """Return a payable, None for an unknown id."""
        return await self._lookup.find(payable_id, None)

    async def by_code(self, code: str) -> Payable | None:
        """Return the payable of a code, None for an unknown code."""
        return await self._lookup.find(None, code)

    async def to_pay(self, payable_id: UUID) -> ToPay | None:
        """Return a payable and its payee."""
        return await self._to_pay.find(payable_id, None)

    async def to_pay_by_code(self, code: str, known: ToPay | None = None) -> ToPay | None:
        """Return the payable of a code and its payee: `known` without a look where it has this code."""
        if known is not None and known.payable.code == code:
            return known
        return await self._to_pay.find(None, code)

    async def paying(self, user_id: UUID, session_id: UUID | None, code: str) -> Paying | None:
        """Return a user, as `Users.by_id`, with the payable of a code and its payee: both in one round trip."""
        return await self._paying.find(user_id, session_id, code)

    async def close(self) -> None:
        """Refuse new calls, and answer those that were accepted."""
        await self._lookup.close()
        await self._to_pay.close()
        await self._paying.close()


def new_code() -> str:
    """Return a code that nobody guesses: 32 characters that are safe in a URL."""
    return secrets.token_urlsafe(CODE_BYTES)


class Stored(NamedTuple):
    """The payable that a creation stored; `new` is False where an equal call under the same key stored it before."""

    id: UUID
    new: bool
    created_at: datetime
    code: str | None = None
    expires_at: datetime | None = None


async def create(
    connection: Connection | Database, new: NewPayable, *, key: RequestKey | None = None
) -> tuple[UUID, bool]:
    """Store a payable; return its id and whether it is new: an equal call under the same key returns the first one.

    Raises Refusal `idempotency_conflict` when the key was used to ask for something else.
    """
    stored = await store(connection, new, key=key)
    return stored.id, stored.new


async def store(
    connection: Connection | Database, new: NewPayable, *, key: RequestKey | None = None
) -> Stored:
    """Do as `create` does, and return the times of creation and end, too."""
    payable_id = ids.new_uuid()
    row = await connection.fetchrow(
        _sql.create_payable,
        payable_id,
        new.kind,
        new.code,
        new.payee_id,
        new.payer_id,
        new.amount,
        new.currency,
        new.reusable,
        new.expires_at,
        new.due_at,
        None if key is None else key.id,
        None if key is None else key.fingerprint,
        msgspec.json.encode(dict(new.details)).decode(),
        new.hold_id,
        new.life,
        new.due_in,
        new.agent_id,
    )
    if row is not None:
        return Stored(payable_id, True, row["created_at"], row["code"], row["expires_at"])
    if key is None:
        raise LookupError("a payable without a key was not stored")
    known = await answered(connection, key)
    if known is None:
        raise LookupError(f"the payable of a key is not there: {key.id}")
    return known


async def answered(source: Connection | Database, key: RequestKey) -> Stored | None:
    """Return the payable of a key, None for a new key. Raises Refusal `idempotency_conflict` for other terms."""
    known = await source.fetchrow(_sql.payable_by_request_key, key.id)
    if known is None:
        return None
    if known["fingerprint"] != key.fingerprint:
        raise Refusal("idempotency_conflict", "This idempotency key was used for another request.")
    return Stored(known["id"], False, known["created_at"], known["code"], known["expires_at"])


async def end(
    connection: Connection, payable_id: UUID, state: Literal["canceled", "rejected"], *, by: UUID | None
) -> bool:
    """End an open payable; return False for one that has ended already, or whose time is over."""
    return await connection.fetchval(_sql.end_payable, payable_id, state, by) is not None
