"""Refunds: asked for once under a request id, stored before the provider is called, and found out after a crash.

A refund whose end nobody knows is repeated under its key only while the provider remembers keys: a later repetition is
a second refund. After that it stays unknown until the provider tells of it, or a person does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from core import ids, metrics
from core.database import queries
from core.errors import Refusal
from core.payments import witness
from core.payments.calls import called
from core.payments.looking import CALL_SECONDS, LEASE_SECONDS, seconds_to_look
from core.payments.observing import note_refund
from core.payments.payments import lock
from core.payments.states import MONEY_STATES, Seen, State
from core.payments.writing import MAX_ERROR, MAX_NAME, MAX_WORD, NewStep, Report, add_steps, fitted
from core.providers.protocol import REMEMBERED, RefundSight, Sight, Standing
from core.work.progress import Progress
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from core.database import Connection, Database, Row
    from core.payments.flow import Payments
    from core.payments.payments import Attempt

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

# Refunds that one step asks about; they are rare, and each is one call.
BATCH: Final = 20
DONE: Final = "done"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
ENDS: Final = frozenset({DONE, FAILED})
RETURNED: Final = "code_not_payable"
"""The request id of our own refund of a payment whose code could not be paid any more; a later trial has a number."""


class Refund(NamedTuple):
    """A refund as it stands: `state` is created, pending, unknown, done or failed; `amount` in units of the payment."""

    id: UUID
    payment_id: UUID
    attempt_id: UUID
    request_id: str
    amount: int
    state: str
    provider_id: str | None
    word: str
    error: str | None
    looks: int
    created_at: datetime

    @property
    def key(self) -> str:
        """The provider's idempotency key."""
        return f"tallystick-refund-{self.id}"


async def refund(
    payments: Payments, payment_id: UUID, request_id: str, amount: int | None, actor: str
) -> Refund:
    """Give back `amount`, or with None all that is left, once under `request_id`; return the refund as it stands then.

    A repetition gets the refund as it stands. Raises Refusal `payment_not_found`, `idempotency_conflict`,
    `payment_not_paid` and `refund_exceeds` with what is `left`.
    """
    asked, new = await in_transaction(
        payments.database, lambda connection: store(connection, payment_id, request_id, amount, actor)
    )
    return await ask(payments, asked, actor) if new else asked


async def under_way(connection: Connection, attempt_id: UUID) -> int:
    """Return the sum of an attempt's refunds that may still be done. The caller has locked the payment."""
    amount: int = await connection.fetchval(_sql.refunds_under_way, attempt_id)
    return amount


class _Gone(NamedTuple):
    """Money of an attempt that is back or on its way there: in all, and refunds of it that are none of ours."""

    total: int
    elsewhere: int


async def _gone(connection: Connection, attempt: Attempt) -> _Gone:
    """Return what is not there to be given back. The caller has locked the payment.

    A provider's level may count a refund that is under way here. It counts once, so a rise of the level since the
    oldest of those was asked for is taken for them first. A dispute has taken its money as well.
    """
    row = await connection.fetchrow(_sql.refunds_of_attempt, attempt.id)
    done, waiting, then = (0, 0, None) if row is None else row
    level = attempt.facts.refunded
    before = max(level - done, 0) if then is None else then
    refunded = max(level, done + waiting + before)
    return _Gone(refunded + max(attempt.facts.disputed, 0), max(level - done - waiting, 0))


async def ask_later(connection: Connection, payment_id: UUID, request_id: str, actor: str) -> None:
    """Store a refund of all that is left, if any, in the transaction of `connection`; the job asks the provider."""
    try:
        await store(connection, payment_id, request_id, None, actor)
    except Refusal as refusal:
        if refusal.code != "refund_exceeds":
            raise


async def latest_of(payments: Payments, payment_id: UUID, request_id: str) -> Refund | None:
    """Return the latest trial of a refund of our own, or None: the first has the id, a later one a number beside."""
    row = await payments.database.fetchrow(_sql.latest_trial, payment_id, request_id)
    return None if row is None else _refund(row)


async def find_refund(payments: Payments, payment_id: UUID, request_id: str) -> Refund | None:
    """Return a refund, or None."""
    return await refund_of(payments.database, payment_id, request_id)


async def refund_of(source: Connection | Database, payment_id: UUID, request_id: str) -> Refund | None:
    """Return a refund as a transaction or the database sees it, or None."""
    row = await source.fetchrow(_sql.refund_by_key, payment_id, request_id)
    return None if row is None else _refund(row)


async def step(payments: Payments) -> Progress:
    """Ask about up to 20 refunds whose end is not known, where that cannot refund twice."""
    with metrics.CLAIM_SECONDS.timed("refunds"):
        rows = await payments.database.fetch(_sql.claim_refunds, BATCH, LEASE_SECONDS)
    done = failed = 0
    for refund_ in map(_refund, rows):
        try:
            await ask(payments, refund_, "reconcile")
            done += 1
        except Refusal as refusal:
            _log.warning("payments.refund_failed", refund=str(refund_.id), code=refusal.code)
            failed += 1
    return Progress(done, failed)


async def store(
    connection: Connection,
    payment_id: UUID,
    request_id: str,
    amount: int | None,
    actor: str,
    *,
    attempt_id: UUID | None = None,
    reason: str | None = None,
) -> tuple[Refund, bool]:
    """Store a refund of the paid attempt, or of the one that is named; return it, and whether it is new."""
    payment = await lock(connection, payment_id)
    row = await connection.fetchrow(_sql.refund_by_key, payment_id, request_id)
    if row is not None:
        if amount not in {None, row["amount"]}:
            raise Refusal("idempotency_conflict", "This request id was used before for another refund.")
        return _refund(row), False
    chosen = [one for one in payment.attempts if attempt_id in {None, one.id} and one.state in MONEY_STATES]
    attempt = next((one for one in chosen if one.state is State.PAID), None) or next(iter(chosen), None)
    if attempt is None:
        raise Refusal(
            "payment_not_paid", "Nothing was paid that could be given back.", state=str(payment.state)
        )
    gone = await _gone(connection, attempt)
    left = max(attempt.facts.received - gone.total, 0)
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        raise Refusal("refund_exceeds", f"At most {left} can be given back.", left=left)
    row = await connection.fetchrow(
        _sql.store_refund, ids.new_uuid(), payment_id, attempt.id, request_id, amount, CALL_SECONDS
    )
    if row is None:
        raise LookupError("a refund was stored and is gone")
    told = {"amount": amount, "request_id": request_id, "reason": reason, "elsewhere": gone.elsewhere}
    asked = NewStep(attempt.id, "refund_asked", told)
    await add_steps(connection, payment, [asked], actor)
    return _refund(row), True


async def ask(payments: Payments, asked: Refund, actor: str) -> Refund:
    """Ask the provider for a refund that is stored, unless it may be a second one, and settle it by the answer."""
    payment, attempt = await payments.attempt_of(asked.payment_id, asked.attempt_id)
    first = asked.state == "created" and asked.looks == 0
    age = datetime.now(UTC) - asked.created_at
    if not first and age >= REMEMBERED.get(attempt.provider, timedelta(0)) / 2:
        return await _settle(
            payments, asked, Seen.UNKNOWN, "unknown: The provider knows no key any more.", actor
        )
    handle = payment.handle(attempt, await payments.terms(payment, attempt.provider))
    ended = await called(
        payments.providers,
        attempt.provider,
        lambda provider: provider.refund(handle, asked.key, asked.amount),
    )
    await payments.noted(attempt.provider, ended.answered)
    seen = ended.seen
    if seen is Seen.UNSENT and not first:
        seen = Seen.UNKNOWN  # this call did not go out, but the one before it may have
    settled = await _settle(payments, asked, seen, ended.error, actor)
    note_refund(payment.surface, attempt.provider, asked.state, settled.state)
    return settled


async def _settle(
    payments: Payments, asked: Refund, seen: RefundSight | Seen, error: str | None, actor: str
) -> Refund:
    settled, wakes = await payments.applier.opening(
        lambda connection: settle_within(payments, connection, asked, seen, error, actor)
    )
    if wakes:
        payments.applier.wake()
    return settled


async def settle_within(
    payments: Payments,
    connection: Connection,
    asked: Refund,
    seen: RefundSight | Seen,
    error: str | None,
    actor: str,
    *,
    reason: str | None = None,
) -> tuple[Refund, bool]:
    """Settle a refund by what was seen of it; return it, and whether events or callbacks were written.

    A refund that was done stays so. One that has failed, as a person has said or another call, is done if the provider
    has done it: the money has moved.
    """
    state, sight = _state_of(seen)
    payment = await lock(connection, asked.payment_id)
    row = await connection.fetchrow(_sql.refund_by_key, asked.payment_id, asked.request_id)
    if row is None:
        return asked, False
    before = row["state"]
    if before == DONE or (before == FAILED and state != DONE):
        return _refund(row), False
    attempt = payment.attempt(asked.attempt_id)
    later = _next_look(attempt, asked, state)
    row = await connection.fetchrow(
        _sql.change_refund,
        asked.id,
        state,
        fitted(sight.provider_id or "", MAX_NAME) or None if sight else None,
        fitted(sight.word, MAX_WORD) if sight else "",
        fitted(error, MAX_ERROR) if error else None,
        later,
    )
    settled = _refund(row) if row else asked
    note = f"{before} was seen as {state} afterwards" if before == FAILED else None
    told = {
        "amount": asked.amount,
        "request_id": asked.request_id,
        "error": error,
        "reason": reason,
        "note": note,
    }
    if state != before:
        await add_steps(connection, payment, [NewStep(attempt.id, f"refund_{state}", told)], actor)
        await witness.refunded(connection, payment, attempt, asked.amount, state, error)
    if state != DONE:
        return settled, False
    total = await connection.fetchval(_sql.refunds_done, attempt.id)
    level = Sight(Standing.PAID, refunded=total)
    # Refunds made elsewhere are not in our sum, so the provider is asked for its own.
    report = Report(level, actor, soon=True)
    _, wakes = await payments.applier.within(connection, payment.id, attempt.id, report)
    return settled, wakes


def _state_of(seen: RefundSight | Seen) -> tuple[str, RefundSight | None]:
    """Return the state that a call's end gives a refund."""
    if isinstance(seen, RefundSight):
        return ("pending" if seen.done is None else DONE if seen.done else FAILED), seen
    return (UNKNOWN if seen is Seen.UNKNOWN else FAILED), None


def _next_look(attempt: Attempt, asked: Refund, state: str) -> float | None:
    """Return in how many seconds the refund is asked about again, None for never."""
    if state in ENDS or REMEMBERED.get(attempt.provider, timedelta(0)) <= timedelta(0):
        return None
    if datetime.now(UTC) - asked.created_at >= REMEMBERED[attempt.provider] / 2:
        return None
    return seconds_to_look(State.UNKNOWN, (), asked.looks, giving_up=False)


def _refund(row: Row) -> Refund:
    return Refund(*(row[name] for name in Refund._fields))
