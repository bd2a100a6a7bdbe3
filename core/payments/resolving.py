"""A named person's word: on what became of an order that nobody knows of, on money in suspense, and on refunds.

A word goes the way of everything that is seen: through the table, in one transaction with its postings, events and
callbacks, with the person's name and reason in the timeline, and a record in the audit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from core.audit import audited, record
from core.database import queries
from core.errors import Refusal
from core.payments.payments import find, lock
from core.payments.refunds import (
    FAILED,
    RETURNED,
    UNKNOWN,
    ask,
    refund_of,
    settle_within,
    store,
    under_way,
)
from core.payments.states import Effect, Seen, State
from core.payments.writing import Report
from core.providers.protocol import RefundSight, Sight, Standing
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from core.database import Connection, Database
    from core.payments.flow import Payments
    from core.payments.payments import Attempt, Payment
    from core.payments.refunds import Refund

_sql = queries(__name__)

MAX_NAME: Final = 100
MAX_REASON: Final = 500


class Word(StrEnum):
    """A person's word on an attempt. The first four are on one whose end nobody knows, the others on money."""

    PAID = "paid"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    ACCEPTED = "accepted"
    """The merchant gets what lies in suspense."""
    RETURNED = "returned"
    """The money in suspense was given back by hand, at the provider."""
    REFUNDED = "refunded"
    """The provider shall be asked to give the money in suspense back."""


_STANDINGS: Final = {
    Word.PAID: Standing.PAID,
    Word.FAILED: Standing.FAILED,
    Word.CANCELED: Standing.CANCELED,
    Word.EXPIRED: Standing.EXPIRED,
}
_MONEY: Final = {Word.ACCEPTED: Seen.ACCEPTED, Word.RETURNED: Seen.RETURNED}


class Said(NamedTuple):
    """The word of a person, who gives a name and a reason.

    It is about the attempt with the `number`, None for the only one that it can be about. `amount` is what has come for
    a paid order, in units of the payment, None for what was asked for; `provider_id` its name at the provider.
    """

    word: Word
    by: str
    reason: str
    number: int | None = None
    amount: int | None = None
    provider_id: str | None = None

    @property
    def actor(self) -> str:
        """The person as the timeline and the audit name it. Raises Refusal `invalid_request` for an empty word."""
        return _actor(self.by, self.reason)


class Listed(NamedTuple):
    """A payment in a list."""

    id: UUID
    surface: str
    caller: str
    request_id: str
    state: str
    amount: int
    scale: int
    currency: str
    paid: int
    refunded: int
    created_at: datetime
    updated_at: datetime


async def resolve(payments: Payments, payment_id: UUID, said: Said) -> Payment:
    """Apply a person's word; return the payment as it is then.

    Raises Refusal `payment_not_found`; `invalid_request` where there is nothing that the word could be about; and for
    REFUNDED those of a refund.
    """
    actor = said.actor
    if said.word is Word.REFUNDED:
        return await _give_back(payments, payment_id, said)

    async def work(connection: Connection) -> tuple[Payment, bool]:
        payment = await lock(connection, payment_id)
        attempt = _attempt(payment, said)
        seen: Sight | Seen
        if said.word in _MONEY:
            seen = _MONEY[said.word]
        else:
            currency = None if said.amount is None else payment.currency
            seen = Sight(
                _STANDINGS[said.word], said.provider_id, said.amount, currency, word="a person's word"
            )
        report = Report(seen, actor, reason=said.reason)
        applied, wakes = await payments.applier.within(connection, payment_id, attempt.id, report)
        if Effect.REFUSE in applied.effects:
            raise _nothing(said.word, attempt)
        await _audit(connection, payment_id, said, before=payment.state, after=applied.payment.state)
        return applied.payment, wakes

    payment, wakes = await payments.applier.opening(work)
    if wakes:
        payments.applier.wake()
    return payment


async def resolve_refund(
    payments: Payments, payment_id: UUID, request_id: str, by: str, reason: str, *, done: bool
) -> Refund:
    """Say of a refund whose end nobody knows that it was done, or was not; return it.

    Raises Refusal `payment_not_found` and `invalid_request`.
    """
    actor = _actor(by, reason)

    async def work(connection: Connection) -> tuple[Refund, bool]:
        await lock(connection, payment_id)
        found = await refund_of(connection, payment_id, request_id)
        if found is None:
            raise Refusal("invalid_request", f"The payment has no refund {request_id}.")
        if found.state != UNKNOWN:  # the call of one that is created may be out, and its answer is worth more
            raise Refusal(
                "invalid_request", f"The refund is {found.state}. A word is about one that is unknown."
            )
        sight = RefundSight(done, word="a person's word")
        settled, wakes = await settle_within(payments, connection, found, sight, None, actor, reason=reason)
        word = audited(
            "payments.refund_resolved",
            actor,
            {"request_id": request_id, "before": found.state, "after": settled.state, "reason": reason},
            object_id=str(payment_id),
        )
        await record(connection, word)
        return settled, wakes

    settled, wakes = await payments.applier.opening(work)
    if wakes:
        payments.applier.wake()
    return settled


async def list_payments(
    database: Database,
    *,
    states: Sequence[str] | None,
    surface: str | None,
    until: datetime | None,
    before: UUID | None,
    limit: int,
) -> list[Listed]:
    """Return up to `limit` payments with ids below `before`, made before `until`, newest first; None means any.

    Payments that have an unknown attempt are unknown, too, and then as old as that attempt: so the alert counts them.
    """
    rows = await database.fetch(_sql.list_payments, states, surface, until, before, limit)
    return [Listed(*row) for row in rows]


async def list_refunds(database: Database, *, before: UUID | None, limit: int) -> list[Refund]:
    """Return up to `limit` refunds that wait for a person, with ids below `before`, newest first.

    Nobody knows their end; or our own, of the money of a code that could not be paid, have failed.
    """
    rows = await database.fetch(_sql.waiting_refunds, before, limit)
    return [
        found for row in rows if (found := await refund_of(database, row["payment_id"], row["request_id"]))
    ]


async def ask_again(payments: Payments, payment_id: UUID, request_id: str, by: str, reason: str) -> Refund:
    """Ask the provider anew for a refund of our own that has failed; return the new one, whose id has a number.

    A caller's refund is the caller's to ask for again. Raises Refusal `payment_not_found`, `invalid_request`, and
    `refund_exceeds` where the money is back or on its way.
    """
    actor = _actor(by, reason)

    async def work(connection: Connection) -> Refund:
        payment = await lock(connection, payment_id)
        failed = await refund_of(connection, payment_id, request_id)
        own = payment.surface == "codes" and request_id.partition(":")[0] == RETURNED
        if failed is None or not own:
            raise Refusal("invalid_request", f"The payment has no refund {request_id} that the service made.")
        if failed.state != FAILED:
            raise Refusal(
                "invalid_request", f"The refund is {failed.state}; one that has failed is made again."
            )
        key = f"{RETURNED}:{payment.revision}"
        stored, _ = await store(
            connection, payment_id, key, None, actor, attempt_id=failed.attempt_id, reason=reason
        )
        told = {"request_id": request_id, "before": failed.state, "after": "asked_again", "reason": reason}
        await record(connection, audited("payments.refund_resolved", actor, told, object_id=str(payment_id)))
        return stored

    return await ask(payments, await in_transaction(payments.database, work), actor)


async def _give_back(payments: Payments, payment_id: UUID, said: Said) -> Payment:
    """Ask the provider for a refund of what lies in suspense, unless one is under way."""

    async def work(connection: Connection) -> Refund:
        payment = await lock(connection, payment_id)
        attempt = _attempt(payment, said)
        facts = attempt.facts
        if facts.on_suspense <= 0:
            raise _nothing(said.word, attempt)
        if await under_way(connection, attempt.id):
            raise Refusal("invalid_request", "A refund of this attempt is under way.")
        left = facts.received - facts.refunded - max(facts.disputed, 0)
        amount = left if facts.state is State.MISMATCHED else min(left, facts.on_suspense)
        key = f"suspense:{attempt.number}:{payment.revision}"
        stored, _ = await store(
            connection, payment_id, key, amount, said.actor, attempt_id=attempt.id, reason=said.reason
        )
        await _audit(connection, payment_id, said, before=payment.state, after=payment.state)
        return stored

    await ask(payments, await in_transaction(payments.database, work), said.actor)
    return await find(payments.database, payment_id)


def _attempt(payment: Payment, said: Said) -> Attempt:
    """Return the attempt that the word is about. Raises Refusal `invalid_request` where there is none, or several."""
    about_money = said.word not in _STANDINGS
    fitting = [
        one
        for one in payment.attempts
        if (_holds_money(one) if about_money else one.state is State.UNKNOWN)
        and said.number in {None, one.number}
    ]
    if len(fitting) == 1:
        return fitting[0]
    states = ", ".join(f"{one.number} is {one.state}" for one in payment.attempts)
    if fitting:
        raise Refusal(
            "invalid_request", f"Name the attempt that the word is about: {states}.", field="attempt"
        )
    wanted = "with money in suspense" if about_money else "whose end nobody knows"
    raise Refusal("invalid_request", f"There is no attempt {wanted}: {states}.", state=str(payment.state))


def _holds_money(attempt: Attempt) -> bool:
    facts = attempt.facts
    return facts.on_suspense > 0 or facts.foreign > facts.foreign_returned


def _nothing(word: Word, attempt: Attempt) -> Refusal:
    facts = attempt.facts
    foreign = facts.foreign > facts.foreign_returned and facts.on_suspense <= 0
    if foreign:
        return Refusal(
            "invalid_request",
            f"The money is in {facts.foreign_currency}, which the merchant's account does not take. Give it back at"
            " the provider, and say returned then.",
        )
    return Refusal("invalid_request", f"Nothing lies in suspense that could be {word}.")


def _actor(by: str, reason: str) -> str:
    for name, text, most in (("by", by, MAX_NAME), ("reason", reason, MAX_REASON)):
        if not text.strip() or len(text) > most or not text.isprintable():
            raise Refusal(
                "invalid_request", f"{name} must be 1 to {most} characters on one line.", field=name
            )
    return f"person:{by}"


async def _audit(
    connection: Connection, payment_id: UUID, said: Said, *, before: State, after: State
) -> None:
    data = {
        "word": str(said.word),
        "before": str(before),
        "after": str(after),
        "attempt": said.number,
        "amount": said.amount,
        "reason": said.reason,
    }
    told = {name: value for name, value in data.items() if value is not None}
    await record(connection, audited("payments.resolved", said.actor, told, object_id=str(payment_id)))
