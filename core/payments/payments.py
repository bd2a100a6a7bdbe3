"""Payments and attempts as they are stored, asked for and read."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from core.database import queries
from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR, decimals
from core.payments.rules import NO_CURRENCY, Asked, Facts
from core.payments.states import MONEY_STATES, State
from core.providers.protocol import Handle, Method, Order, Recurrence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from core.database import Connection, Database, Row

_sql = queries(__name__)
_encode = msgspec.json.Encoder(order="deterministic").encode
_MOST_DECIMALS: Final = 8
UNKNOWN_FINGERPRINT: Final = bytes(32)
"""The fingerprint of a payment of the services before: every request under its key is a repetition of it."""
_OWN_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The bounds of the schema.
_MOST_LETTERS: Final = {"caller": 128, "request_id": 255, "account": 128}
# Accounts between which payments move: a payment to one of them would go in a circle.
_NOT_MERCHANTS: Final = ("provider:", "source:", "system:")


class NewPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that is asked for: once for each surface, caller and request id.

    `amount` is in units of 10 to the power of -`scale` of the currency, which are the minor units of every currency but
    XXX. `account` is the ledger account that the money goes to. `principal_id` is told of the payment by events.
    """

    surface: str
    caller: str
    request_id: str
    amount: int
    currency: str
    method: Method
    title: str
    reference: str
    scale: int | None = None
    account: str | None = None
    principal_id: int | None = None
    recurrence: Recurrence | None = None
    customer: str | None = None
    phone: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    metadata: Mapping[str, str] = {}
    provider: str | None = None
    """The only provider that may be tried, by its name; None leaves the choice to the routes."""
    expires_at: datetime | None = None

    def require_storable(self) -> None:
        """Raise Refusal `invalid_request` for a text that the database cannot hold, or that no key of a caller has."""
        asked = msgspec.to_builtins(self)
        texts = [*asked.values(), *asked["metadata"], *asked["metadata"].values()]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise Refusal("invalid_request", "A text must not have a NUL character.")
        for name, most in _MOST_LETTERS.items():
            text = asked[name]
            if text is not None and not 0 < len(text) <= most:
                raise Refusal("invalid_request", f"{name} must have 1 to {most} characters.", field=name)

    def check(self) -> int:
        """Return the scale. Raises Refusal `invalid_request` for an amount that cannot be asked for."""
        scale = self.scale
        if scale is None:
            scale = _MOST_DECIMALS if self.currency == NO_CURRENCY else decimals(self.currency)
        if not 0 < self.amount <= MAX_AMOUNT_MINOR:
            raise Refusal("invalid_request", "The amount must be above zero and within the ledger's bounds.")
        if self.account is not None and self.account.startswith(_NOT_MERCHANTS):
            raise Refusal("invalid_request", "The account is one of the platform's own.")
        if self.currency == NO_CURRENCY:
            if self.account is not None:
                raise Refusal("invalid_request", "Money without a currency has no account in the ledger.")
        elif scale != decimals(self.currency):
            raise Refusal("invalid_request", f"{self.currency} has {decimals(self.currency)} decimals.")
        return scale

    def fingerprint(self) -> bytes:
        """Return the digest by which a repeated request is compared: of everything but the key and the time it ends."""
        asked = msgspec.to_builtins(self)
        for name in ("surface", "caller", "request_id", "principal_id", "expires_at"):
            del asked[name]
        return hashlib.sha256(_encode(asked)).digest()

    def details(self) -> str:
        """Return the order, but for the money, as JSON."""
        names = Details.__struct_fields__
        return msgspec.json.encode({name: getattr(self, name) for name in names}).decode()


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """The order as the payment keeps it, but for the money."""

    title: str
    reference: str
    recurrence: Recurrence | None = None
    customer: str | None = None
    phone: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    metadata: dict[str, str] = {}


class Attempt(NamedTuple):
    """One try at one provider. `looks` counts how often the provider was asked; `url` is where the payer pays."""

    id: UUID
    number: int
    provider: str
    facts: Facts
    provider_id: str | None
    names: Mapping[str, str]
    url: str | None
    word: str
    error: str | None
    giving_up: bool
    looks: int
    next_look_at: datetime | None
    created_at: datetime
    expires_at: datetime | None

    @property
    def state(self) -> State:
        """The state."""
        return self.facts.state


class Payment(NamedTuple):
    """A payment as it stands, with its attempts, the oldest first. Amounts are in units of 10 ** -`scale`."""

    id: UUID
    surface: str
    caller: str
    request_id: str
    fingerprint: bytes
    principal_id: int | None
    amount: int
    scale: int
    currency: str
    method: Method
    account: str | None
    details: Details
    state: State
    wish: str | None
    routes: Sequence[str]
    paid: int
    refunded: int
    disputed: int
    revision: int
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    attempts: tuple[Attempt, ...]

    @property
    def latest(self) -> Attempt:
        """The attempt that was made last."""
        return self.attempts[-1]

    @property
    def current(self) -> Attempt:
        """The attempt that gives the payment its state, the latest if there are several."""
        return next((one for one in reversed(self.attempts) if one.state is self.state), self.latest)

    def attempt(self, attempt_id: UUID) -> Attempt:
        """Return one of the attempts."""
        return next(one for one in self.attempts if one.id == attempt_id)

    def again(self, request_id: str, provider: str) -> NewPayment:
        """Return the same payment under another request id, at one provider."""
        return NewPayment(
            surface=self.surface,
            caller=self.caller,
            request_id=request_id,
            amount=self.amount,
            scale=self.scale,
            currency=self.currency,
            method=self.method,
            account=self.account,
            principal_id=self.principal_id,
            provider=provider,
            **{name: getattr(self.details, name) for name in Details.__struct_fields__},
        )

    def asked(self, attempt: Attempt) -> Asked:
        """Return what the rules need of the payment to judge one of its attempts."""
        elsewhere = any(one.state in MONEY_STATES for one in self.attempts if one.id != attempt.id)
        return Asked(self.amount, self.currency, self.wish, elsewhere, self.revision)

    def order(self, attempt: Attempt, terms: Mapping[str, str]) -> Order:
        """Return the order of an attempt: the same for every repetition. Its key is the attempt's own id."""
        told = self.details
        return Order(
            attempt.id,
            f"tallystick-{attempt.id}",
            self.amount,
            self.currency,
            self.method,
            told.title,
            told.reference,
            told.recurrence,
            told.customer,
            told.phone,
            told.success_url,
            told.cancel_url,
            told.metadata,
            terms,
        )

    def handle(self, attempt: Attempt, terms: Mapping[str, str]) -> Handle:
        """Return the names under which the provider knows an attempt."""
        wanted = self.wish is None and not attempt.giving_up
        return Handle(self.order(attempt, terms), attempt.provider_id, attempt.names, wanted)


class Step(NamedTuple):
    """One line of a payment's timeline; `state` is that of the payment afterwards."""

    no: int
    attempt_id: UUID | None
    kind: str
    actor: str
    state: str
    data: dict[str, Any]
    recorded_at: datetime


async def find_by_key(
    source: Connection | Database, surface: str, caller: str, request_id: str
) -> Payment | None:
    """Return the payment of a key, or None."""
    return _payment(await source.fetch(_sql.payment_by_key, surface, caller, request_id))


async def find(source: Connection | Database, payment_id: UUID) -> Payment:
    """Return a payment. Raises Refusal `payment_not_found`."""
    payment = _payment(await source.fetch(_sql.payment_by_id, payment_id))
    if payment is None:
        raise Refusal("payment_not_found", "There is no such payment.")
    return payment


async def find_by_name(
    source: Connection | Database, provider: str, names: Sequence[str]
) -> tuple[UUID, UUID] | None:
    """Return the ids of the payment and the attempt that a provider knows under one of these names, or None."""
    return (await find_by_names(source, [(provider, names)]))[0]


async def find_by_names(
    source: Connection | Database, wanted: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[UUID, UUID] | None]:
    """Return for each provider with names the ids of the payment and the attempt that it knows under one, or None.

    The first name that is known counts. The attempt's own id, which goes out with each order, comes after all names
    that the provider has told: an event may come while no answer has told the provider's.
    """
    return (await find_with_owners(source, wanted, ()))[0]


async def find_with_owners(
    source: Connection | Database, wanted: Sequence[tuple[str, Sequence[str]]], accounts: Sequence[str]
) -> tuple[list[tuple[UUID, UUID] | None], dict[str, int]]:
    """Return what `find_by_names` does, and who opened the accounts with these codes, all in one round trip."""
    asked = [(no, provider, name) for no, (provider, names) in enumerate(wanted) for name in names]
    own = [one for one in asked if _OWN_ID.fullmatch(one[2])]
    rows = await source.fetch(
        _sql.attempts_by_names,
        *([one[column] for one in asked] for column in range(3)),
        *([one[column] for one in own] for column in range(2)),
        [UUID(name) for _, _, name in own],
        accounts,
    )
    found = {row["question"]: (row["payment_id"], row["attempt_id"]) for row in rows}
    owners = {row["code"]: row["created_by"] for row in rows if row["code"] is not None}
    return [found.get(no) for no in range(len(wanted))], owners


async def timeline(source: Connection | Database, payment_id: UUID) -> list[Step]:
    """Return everything that has happened to a payment, the oldest first."""
    rows = await source.fetch(_sql.payment_timeline, payment_id)
    return [Step(*row)._replace(data=msgspec.json.decode(row["data"])) for row in rows]


async def lock(connection: Connection, payment_id: UUID) -> Payment:
    """Lock a payment until the end of the transaction, and read it then. Raises Refusal `payment_not_found`."""
    await connection.fetch(_sql.lock_payment, payment_id)
    return await find(connection, payment_id)


def _payment(rows: Sequence[Row]) -> Payment | None:
    """Read the rows of a payment, one for each attempt."""
    if not rows:
        return None
    row = rows[0]
    values = {name: row[name] for name in Payment._fields if name != "attempts"}
    values |= {
        "method": Method(row["method"]),
        "state": State(row["state"]),
        "details": msgspec.json.decode(row["details"], type=Details),
    }
    return Payment(**values, attempts=tuple(_attempt(one) for one in rows))


def _attempt(row: Row) -> Attempt:
    facts = Facts(
        State(row["attempt_state"]),
        row["received"],
        row["attempt_refunded"],
        row["attempt_disputed"],
        row["fee"],
        row["on_suspense"],
        row["foreign_amount"],
        row["foreign_currency"],
        row["accepted"],
        row["foreign_returned"],
    )
    return Attempt(
        row["attempt_id"],
        row["number"],
        row["provider"],
        facts,
        row["provider_id"],
        msgspec.json.decode(row["names"]),
        row["url"],
        row["word"],
        row["error"],
        row["giving_up"],
        row["looks"],
        row["next_look_at"],
        row["attempt_created_at"],
        row["attempt_expires_at"],
    )
