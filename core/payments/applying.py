"""Applying: the one way in which a payment changes, whoever has seen something: a call, an event, a look, a person.

One transaction locks the payment, decides by the rules, posts, and writes attempt, payment, timeline and events. Locks
go in the global order, payments before accounts. No provider is called in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import structlog

from core import ids
from core.database import queries
from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.outbox.events import write_events
from core.payments.accounts import posting_of, system_accounts
from core.payments.looking import CALL_SECONDS, seconds_to_look
from core.payments.payments import find, lock
from core.payments.rules import CANCEL, EXPIRE, Dispute, Place, dispute, hear, see, seen_of, suspended
from core.payments.states import MONEY_STATES, OPEN_STATES, Effect, Seen, State, overall
from core.payments.telling import told_of
from core.providers.protocol import Sight
from core.work.retries import in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from core.database import Connection, Database
    from core.ledger.ledger import Ledger
    from core.payments.payments import Attempt, Payment
    from core.payments.rules import Change, Facts, Movement

_sql = queries(__name__)
_log = structlog.get_logger(__name__)

MAX_ERROR: Final = 500
MAX_WORD: Final = 200
MAX_NAME: Final = 255
MAX_URL: Final = 4_096
# Every place may lack its account, in two currencies.
MAX_OPENINGS: Final = 3


_WISHES: Final = {Seen.CANCEL_ASKED: CANCEL, Seen.EXPIRE_ASKED: EXPIRE}


class Report(NamedTuple):
    """What was seen of an attempt, by whom, and with which error (a code and a sentence) where a call has failed.

    `actor` is one of those that sql/migrations/0033_payments.sql names. A `look` is counted for the time of the next.
    """

    seen: Sight | Seen | Dispute
    actor: str
    error: str | None = None
    look: bool = False


class Applied(NamedTuple):
    """The payment after a report, and the effects of the transition."""

    payment: Payment
    effects: frozenset[Effect]


class _NoAccountError(Exception):
    """A system account is not open yet."""

    def __init__(self, needed: dict[str, str]) -> None:
        super().__init__(str(needed))
        self.needed = needed


class Applier:
    """Applies reports. `wake` is called after a commit that has written events."""

    def __init__(self, database: Database, ledger: Ledger, wake: Callable[[], None]) -> None:
        self._database = database
        self._ledger = ledger
        self._wake = wake

    async def apply(self, payment_id: UUID, attempt_id: UUID, report: Report) -> Applied:
        """Apply a report. Raises Refusal `payment_not_found`, and Unavailable when it has not happened."""
        for _ in range(MAX_OPENINGS):
            try:
                applied, told = await in_transaction(
                    self._database, lambda connection: self.within(connection, payment_id, attempt_id, report)
                )
            except _NoAccountError as error:
                openings = [Opening(code, name, Limits(floor=None)) for code, name in error.needed.items()]
                await open_accounts(self._database, openings, SYSTEM_PRINCIPAL)
                continue
            if told:
                self._wake()
            return applied
        raise RuntimeError(f"the accounts of payment {payment_id} cannot be opened")

    async def within(
        self, connection: Connection, payment_id: UUID, attempt_id: UUID, report: Report
    ) -> tuple[Applied, bool]:
        """Apply a report in the transaction of `connection`; return also whether events were written."""
        payment = await lock(connection, payment_id)
        attempt = payment.attempt(attempt_id)
        if isinstance(report.seen, Seen) and report.seen in _WISHES and attempt.giving_up:
            return Applied(payment, frozenset()), False  # the provider is being asked
        change = _decide(payment, attempt, report)
        facts, postings = await self._post(connection, payment, attempt, change, report)
        moved = [] if facts == attempt.facts else postings
        return await _write(connection, payment, attempt, change._replace(facts=facts), report, moved)

    async def _post(
        self, connection: Connection, payment: Payment, attempt: Attempt, change: Change, report: Report
    ) -> tuple[Facts, list[dict[str, Any]]]:
        """Post the movements; return the facts with what lies in suspense, and the postings for the timeline."""
        left, facts, done = list(change.movements), change.facts, list[dict[str, Any]]()
        while left:
            outcomes = await self._ledger.post_within(
                connection, [posting_of(payment, attempt, movement) for movement in left]
            )
            again: list[Movement] = []
            for movement, outcome in zip(left, outcomes, strict=True):
                own = system_accounts(payment, attempt, movement.currency)
                if outcome.replayed and isinstance(report.seen, Dispute):
                    return attempt.facts, []  # this part of the dispute was counted before
                if outcome.posted:
                    done.append(_told_movement(movement))
                elif outcome.kind.code == "account_not_found" and outcome.account in own:
                    raise _NoAccountError(own)
                elif not any(Place.MERCHANT in pair[:2] for pair in movement.pairs):
                    raise outcome.refusal()
                else:
                    elsewhere, more = suspended(movement)
                    facts = facts._replace(on_suspense=facts.on_suspense + more)
                    _log.warning(
                        "payments.suspended",
                        payment=str(payment.id),
                        kind=movement.kind,
                        code=outcome.kind.code,
                    )
                    done.append({"kind": movement.kind, "suspended": outcome.kind.code})
                    again += [elsewhere] if elsewhere.pairs else []
            left = again
        return facts, done


def _decide(payment: Payment, attempt: Attempt, report: Report) -> Change:
    asked, seen = payment.asked(attempt), report.seen
    if isinstance(seen, Sight):
        return see(asked, attempt.facts, seen)
    if isinstance(seen, Dispute):
        return dispute(asked, attempt.facts, seen)
    return hear(attempt.facts, seen, asked)


async def _write(
    connection: Connection,
    before: Payment,
    attempt: Attempt,
    change: Change,
    report: Report,
    postings: list[dict[str, Any]],
) -> tuple[Applied, bool]:
    """Write attempt, payment, timeline and events; return what was applied, and whether there are events."""
    sight = report.seen if isinstance(report.seen, Sight) else None
    after = await _write_attempt(connection, before, attempt, change, report, sight)
    steps: list[tuple[UUID, str, dict[str, Any]]] = []
    if after != attempt._replace(looks=after.looks, next_look_at=after.next_look_at) or change.note:
        steps.append(
            (attempt.id, _kind(before, attempt, report), _data(attempt, after, change, report, postings))
        )
    attempts = [after if one.id == attempt.id else one for one in before.attempts]
    states = [one.state for one in attempts]
    if (
        Effect.NEXT in change.effects
        and attempt.id == before.latest.id
        and attempt.number < len(before.routes)
    ):
        provider = before.routes[attempt.number]
        attempt_id = ids.new_uuid()
        await connection.execute(
            _sql.next_attempt, attempt_id, before.id, attempt.number + 1, provider, "{}", CALL_SECONDS
        )
        steps.append((attempt_id, "next_attempt", {"provider": provider, "number": attempt.number + 1}))
        states.append(State.CREATED)
    if not steps:
        return Applied(before, change.effects), False
    state = overall(states)
    await connection.execute(
        _sql.change_payment,
        before.id,
        state,
        sum(one.facts.received for one in attempts if one.state in MONEY_STATES),
        sum(one.facts.refunded for one in attempts),
        sum(one.facts.disputed for one in attempts),
        before.revision + len(steps),
        _WISHES.get(report.seen) if isinstance(report.seen, Seen) else None,
    )
    for no, (attempt_id, kind, data) in enumerate(steps, before.revision + 1):
        await add_step(connection, before.id, no, attempt_id, kind, report.actor, state, data)
    payment = await find(connection, before.id)
    events = told_of(before, payment)
    await write_events(connection, events)
    return Applied(payment, change.effects), bool(events)


async def _write_attempt(
    connection: Connection,
    payment: Payment,
    attempt: Attempt,
    change: Change,
    report: Report,
    sight: Sight | None,
) -> Attempt:
    facts = change.facts
    looks = 0 if facts.state != attempt.state else attempt.looks + report.look
    giving_up = _gives_up(payment, attempt, change, report)
    given = {} if sight is None else {name: text for name, text in sight.names.items() if text}
    provider_id = attempt.provider_id or (None if sight is None else sight.provider_id)
    after = attempt._replace(
        facts=facts,
        provider_id=provider_id,
        names={**given, **attempt.names},
        url=attempt.url or (sight.url if sight and sight.url and len(sight.url) <= MAX_URL else None),
        word=sight.word[:MAX_WORD] if sight and sight.word else attempt.word,
        error=report.error[:MAX_ERROR] if report.error else None if sight else attempt.error,
        giving_up=giving_up,
        looks=looks,
    )
    await connection.execute(
        _sql.change_attempt,
        attempt.id,
        after.provider_id,
        msgspec.json.encode(after.names).decode(),
        after.url,
        after.word,
        after.error,
        *facts,
        giving_up,
        looks,
        seconds_to_look(facts.state, change.effects, looks, giving_up=giving_up),
    )
    names = [name[:MAX_NAME] for name in {after.provider_id, *after.names.values()} if name]
    if names and (after.provider_id, after.names) != (attempt.provider_id, attempt.names):
        await connection.execute(_sql.name_attempt, attempt.provider, sorted(names), attempt.id)
    return after


def _gives_up(payment: Payment, attempt: Attempt, change: Change, report: Report) -> bool:
    """Whether the provider is asked to close the attempt: by a wish, or as it is open there and closed here."""
    if change.facts.state in OPEN_STATES:
        return payment.wish is not None or Effect.GIVE_UP in change.effects
    if change.facts.state in MONEY_STATES:
        return False
    answered = isinstance(report.seen, Sight)
    return Effect.GIVE_UP in change.effects or (attempt.giving_up and not answered)


async def add_step(
    connection: Connection,
    payment_id: UUID,
    no: int,
    attempt_id: UUID | None,
    kind: str,
    actor: str,
    state: str,
    data: dict[str, Any],
) -> None:
    """Add a line to the timeline of a payment that is locked."""
    text = msgspec.json.encode({name: value for name, value in data.items() if value is not None}).decode()
    await connection.execute(_sql.add_step, payment_id, no, attempt_id, kind, actor, state, text)


def _kind(payment: Payment, attempt: Attempt, report: Report) -> str:
    if isinstance(report.seen, Dispute):
        return "dispute"
    if isinstance(report.seen, Sight):
        return str(seen_of(payment.asked(attempt), attempt.facts, report.seen))
    return str(report.seen)


def _data(
    before: Attempt, after: Attempt, change: Change, report: Report, postings: list[dict[str, Any]]
) -> dict[str, Any]:
    seen = report.seen
    sight = seen if isinstance(seen, Sight) else None
    return {
        "before": str(before.state),
        "after": str(after.state),
        "provider": after.provider,
        "word": sight.word or None if sight else None,
        "amount": sight.amount if sight else seen.amount if isinstance(seen, Dispute) else None,
        "currency": sight.currency if sight else None,
        "refunded": sight.refunded if sight else None,
        "error": report.error,
        "note": change.note,
        "postings": postings or None,
    }


def _told_movement(movement: Movement) -> dict[str, Any]:
    pairs = [f"{pair.source}>{pair.target} {pair.amount}" for pair in movement.pairs]
    return {"kind": movement.kind, "currency": movement.currency, "pairs": pairs}
