"""Applying: the one way in which a payment changes, whoever has seen something: a call, an event, a look, a person.

One transaction locks the payment, decides by the rules, posts, and writes attempt, payment, timeline and events. Locks
go in the global order, payments before accounts. No provider is called in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import structlog

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.payments import witness
from core.payments.accounts import posting_of, system_accounts
from core.payments.looking import LAST_LOOK_SECONDS
from core.payments.observing import note
from core.payments.payments import lock
from core.payments.rules import Dispute, Place, accept, dispute, hear, returned, see, suspended
from core.payments.states import Seen, State
from core.payments.telling import Arming
from core.payments.writing import Report, claimed, write
from core.providers.protocol import Sight
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.items import Outcome, Posting
    from core.ledger.ledger import Ledger
    from core.payments.onward import Onward
    from core.payments.payments import Attempt, Payment
    from core.payments.rules import Change, Facts, Movement
    from core.payments.states import Effect

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)

# A change may need accounts in two currencies, and another process may open some of them meanwhile.
MAX_OPENINGS: Final = 3


class Applied(NamedTuple):
    """The payment after a report, the effects, whether anything has changed, and the payment's state before it."""

    payment: Payment
    effects: frozenset[Effect]
    changed: bool
    before: State


class _NoAccountError(Exception):
    """A system account is not open yet."""

    def __init__(self, needed: dict[str, str]) -> None:
        super().__init__(str(needed))
        self.needed = needed


class Applier:
    """Applies reports. `wake` is called after a commit that has written events or callbacks."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        wake: Callable[[], None],
        arming: Arming | None = None,
        longest_look: float = LAST_LOOK_SECONDS,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._arming = arming or Arming()
        self._longest_look = longest_look
        self.wake = wake
        self.onward: Mapping[str, Onward] = {}
        """By the surface: what it does with the money of its payments."""

    async def apply(self, payment_id: UUID, attempt_id: UUID, report: Report) -> Applied:
        """Apply a report. Raises Refusal `payment_not_found`, and Unavailable when it has not happened."""
        applied, told = await self.opening(
            lambda connection: self.within(connection, payment_id, attempt_id, report)
        )
        note(applied)
        if told:
            self.wake()
        return applied

    async def opening(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run `work` in a transaction, again after opening a system account that it needed."""
        for _ in range(MAX_OPENINGS):
            try:
                return await in_transaction(self._database, work)
            except _NoAccountError as error:
                openings = [Opening(code, name, Limits(floor=None)) for code, name in error.needed.items()]
                await open_accounts(self._database, openings, SYSTEM_PRINCIPAL)
        return await in_transaction(self._database, work)

    async def within(
        self, connection: Connection, payment_id: UUID, attempt_id: UUID, report: Report
    ) -> tuple[Applied, bool]:
        """Apply a report in the transaction of `connection`; return also whether events or callbacks were written."""
        payment = await lock(connection, payment_id)
        # A wish is for the payment; the attempt that it concerns is known under the lock.
        attempt = payment.attempt(attempt_id) if report.wish is None else payment.current
        if report.wish is not None and attempt.giving_up:
            return Applied(
                payment, frozenset(), False, payment.state
            ), False  # the provider is being asked already
        report = await claimed(connection, payment, attempt, report)
        change = _decide(payment, attempt, report)
        onward = self._onward_of(payment, change)
        further = None if onward is None else await onward.posting(connection, payment, change.facts)
        facts, postings, outcome = await self._post(connection, payment, attempt, change, further)
        after, told = await write(
            connection,
            payment,
            attempt,
            change._replace(facts=facts),
            report,
            postings,
            longest_look=self._longest_look,
        )
        if onward is not None:
            await onward.settle(connection, after, outcome)
            told = told or (outcome is not None and outcome.wakes)
        await witness.applied(connection, attempt, after, report)
        changed = after.revision != payment.revision
        armed = changed and await self._arming.arm(connection, payment, after)
        return Applied(after, change.effects, changed, payment.state), told or armed

    def _onward_of(self, payment: Payment, change: Change) -> Onward | None:
        """Return the surface's part where this change is the one that makes the payment paid."""
        comes = change.facts.state is State.PAID and payment.state is not State.PAID and change.movements
        return self.onward.get(payment.surface) if comes else None

    async def _post(
        self,
        connection: Connection,
        payment: Payment,
        attempt: Attempt,
        change: Change,
        further: Posting | None,
    ) -> tuple[Facts, list[dict[str, Any]], Outcome | None]:
        """Post the movements, and `further` after them in the same call.

        Returns the facts with what lies in suspense, the postings for the timeline, and the outcome of `further`.
        """
        left, facts, done = list(change.movements), change.facts, list[dict[str, Any]]()
        last: Outcome | None = None
        while left:
            postings = [posting_of(payment, attempt, movement) for movement in left]
            outcomes = await self._ledger.post_within(
                connection, [*postings, *([further] if further else [])]
            )
            if further is not None:
                *outcomes, last = outcomes
                further = None
            again: list[Movement] = []
            for movement, outcome in zip(left, outcomes, strict=True):
                if outcome.posted:
                    if outcome.replayed and movement.once:
                        return attempt.facts, [], last  # this part of a dispute was counted before
                    done.append(_told(movement))
                    continue
                _require_suspendable(payment, attempt, movement, outcome)
                elsewhere, more = suspended(movement)
                facts = facts._replace(on_suspense=facts.on_suspense + more)
                done.append({"kind": movement.kind, "suspended": outcome.kind.code})
                again += [elsewhere] if elsewhere.pairs else []
            left = again
        return facts, done, last


def _decide(payment: Payment, attempt: Attempt, report: Report) -> Change:
    asked, seen = payment.asked(attempt), report.seen
    if isinstance(seen, Sight):
        return see(asked, attempt.facts, seen)
    if isinstance(seen, Dispute):
        return dispute(asked, attempt.facts, seen)
    if seen is Seen.ACCEPTED:
        return accept(asked, attempt.facts)
    if seen is Seen.RETURNED:
        return returned(asked, attempt.facts)
    return hear(attempt.facts, seen, asked)


def _require_suspendable(payment: Payment, attempt: Attempt, movement: Movement, outcome: Outcome) -> None:
    """Raise _NoAccountError for an account of ours that is not open, and Refusal unless the merchant is the cause."""
    own = system_accounts(payment, attempt, movement.currency)
    if outcome.kind.code == "account_not_found" and outcome.account in own:
        raise _NoAccountError(own)
    if not any(Place.MERCHANT in pair[:2] for pair in movement.pairs):
        raise outcome.refusal()
    _log.warning("payments.suspended", payment=str(payment.id), kind=movement.kind, code=outcome.kind.code)


def _told(movement: Movement) -> dict[str, Any]:
    pairs = [f"{pair.source}>{pair.target} {pair.amount}" for pair in movement.pairs]
    return {"kind": movement.kind, "currency": movement.currency, "pairs": pairs}
