"""Writing a decision down: attempt, payment, timeline and events, in the transaction that has locked the payment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from core import ids
from core.database import queries
from core.outbox.events import write_events
from core.payments.looking import CALL_SECONDS, LAST_LOOK_SECONDS, seconds_to_look
from core.payments.payments import find, lock
from core.payments.routing import MOST_ROUTES
from core.payments.rules import CANCEL, EXPIRE, Dispute, seen_of
from core.payments.states import MONEY_STATES, OPEN_STATES, Effect, Seen, State, overall
from core.payments.telling import told_of
from core.providers.calling import UNREADABLE
from core.providers.protocol import TEXTS, Sight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.database import Connection
    from core.payments.payments import Attempt, Payment
    from core.payments.rules import Change

_sql = queries(__name__)

MAX_ERROR: Final = 500
MAX_WORD: Final = 200
MAX_NAME: Final = 255
MAX_URL: Final = 4_096

WISHES: Final = {Seen.CANCEL_ASKED: CANCEL, Seen.EXPIRE_ASKED: EXPIRE}


class Report(NamedTuple):
    """A sight or another thing seen of an attempt, by whom, and with which error (a code and a sentence) if any.

    `actor` is one of those that sql/migrations/0033_payments.sql names. A `look` counts for the time of the next one.
    With `soon` the provider is looked at next, whatever the state, because there is more to be seen. A person gives a
    `reason`, which the timeline keeps.
    """

    seen: Sight | Seen | Dispute
    actor: str
    error: str | None = None
    look: bool = False
    soon: bool = False
    reason: str | None = None

    @property
    def sight(self) -> Sight | None:
        """The provider's account, if it is one."""
        return self.seen if isinstance(self.seen, Sight) else None

    @property
    def wish(self) -> str | None:
        """The wish that nobody pays any more, if it is one."""
        return WISHES.get(self.seen) if isinstance(self.seen, Seen) else None


async def claimed(connection: Connection, payment: Payment, attempt: Attempt, report: Report) -> Report:
    """Let the attempt be known by the provider's id in a report; return the report, as unknown if another has that id.

    A provider that gives two orders one id cannot tell which of them was paid, so the second is never paid by it.
    """
    sight = report.sight
    name = fitted(sight.provider_id or "", MAX_NAME) if sight is not None else ""
    if not name or name == attempt.provider_id:
        return report
    await connection.execute(_sql.name_attempt, attempt.provider, [name], attempt.id)
    if await connection.fetchval(_sql.other_of_name, attempt.provider, name, payment.id) is None:
        return report
    error = f"{UNREADABLE}: {attempt.provider} has answered with {name}, which is another payment's id."
    return report._replace(seen=Seen.UNKNOWN, error=error)


class NewStep(NamedTuple):
    """A line for the timeline: about which attempt, of which kind, with which data."""

    attempt_id: UUID
    kind: str
    data: dict[str, Any]


async def write(
    connection: Connection,
    before: Payment,
    attempt: Attempt,
    change: Change,
    report: Report,
    postings: list[dict[str, Any]],
    *,
    longest_look: float = LAST_LOOK_SECONDS,
) -> tuple[Payment, bool]:
    """Write the change of an attempt; return the payment after it, and whether there are events.

    An open attempt is looked at after `longest_look` seconds at the latest.
    """
    after = await _write_attempt(connection, before, attempt, change, report, longest_look)
    attempts = tuple(after if one.id == attempt.id else one for one in before.attempts)
    payment = before._replace(attempts=attempts)
    if after.state in MONEY_STATES and any(one.state in OPEN_STATES for one in attempts):
        await connection.execute(_sql.give_up_others, before.id, attempt.id)
    steps: list[NewStep] = []
    same = after == attempt._replace(looks=after.looks, next_look_at=after.next_look_at)
    if same and change.note:
        # A provider that is asked again and again says the same each time, and one line tells it.
        same = not postings and change.note == await connection.fetchval(
            _sql.last_note, before.id, attempt.id
        )
    if report.reason or not same:
        steps.append(
            NewStep(
                attempt.id, _kind(before, attempt, report), _data(attempt, after, change, report, postings)
            )
        )
    if (
        Effect.NEXT in change.effects
        and attempt.id == before.latest.id
        and attempt.number < len(before.routes)
    ):
        steps.append(await _add_attempt(connection, before, attempt.number))
        payment = await find(connection, before.id)
    if not steps:
        return payment, False
    payment = await add_steps(connection, _summed(payment, report.wish), steps, report.actor)
    events = told_of(before, payment)
    await write_events(connection, events)
    return payment, bool(events)


async def add_steps(
    connection: Connection, payment: Payment, steps: Sequence[NewStep], actor: str
) -> Payment:
    """Write a payment that is locked, with lines for its timeline; return it as it is then."""
    after = payment._replace(revision=payment.revision + len(steps))
    updated_at = await connection.fetchval(
        _sql.change_payment,
        after.id,
        after.state,
        after.paid,
        after.refunded,
        after.disputed,
        after.revision,
        after.wish,
    )
    for no, step in enumerate(steps, payment.revision + 1):
        data = {name: value for name, value in step.data.items() if value is not None}
        text = msgspec.json.encode(data).decode()
        await connection.execute(
            _sql.add_step, after.id, no, step.attempt_id, step.kind, actor, after.state, text
        )
    return after._replace(updated_at=updated_at)


async def add_trial(connection: Connection, payment_id: UUID, actor: str) -> bool:
    """Add an attempt to a payment whose attempts have all ended before a provider took the order; whether there is one.

    An error without any name at the provider is its refusal, or a call that did not go out. Nothing was charged then.
    """
    payment = await lock(connection, payment_id)
    taken = any(one.state is not State.FAILED or one.provider_id or not one.error for one in payment.attempts)
    if taken or payment.wish is not None or len(payment.attempts) == MOST_ROUTES:
        return False
    attempt_id, number, provider = ids.new_uuid(), len(payment.attempts) + 1, payment.routes[0]
    await connection.execute(_sql.next_attempt, attempt_id, payment.id, number, provider, CALL_SECONDS)
    step = NewStep(attempt_id, "next_attempt", {"provider": provider, "number": number})
    await add_steps(connection, _summed(await find(connection, payment.id), None), [step], actor)
    return True


def _summed(payment: Payment, wish: str | None) -> Payment:
    """Return a payment with the state and the amounts that follow from its attempts."""
    attempts = payment.attempts
    return payment._replace(
        state=overall(one.state for one in attempts),
        paid=sum(one.facts.received for one in attempts if one.state in MONEY_STATES),
        refunded=sum(one.facts.refunded for one in attempts),
        disputed=sum(one.facts.disputed for one in attempts),
        wish=payment.wish or wish,
    )


async def _add_attempt(connection: Connection, payment: Payment, number: int) -> NewStep:
    attempt_id, provider = ids.new_uuid(), payment.routes[number]
    await connection.execute(_sql.next_attempt, attempt_id, payment.id, number + 1, provider, CALL_SECONDS)
    return NewStep(attempt_id, "next_attempt", {"provider": provider, "number": number + 1})


async def _write_attempt(
    connection: Connection,
    payment: Payment,
    attempt: Attempt,
    change: Change,
    report: Report,
    longest_look: float,
) -> Attempt:
    after = _attempt_after(payment, attempt, change, report)
    effects, facts = change.effects, change.facts
    look_in = seconds_to_look(
        facts.state,
        effects,
        after.looks,
        giving_up=after.giving_up,
        provider=attempt.provider,
        age=datetime.now(UTC) - attempt.created_at,
        nameless=after.provider_id is None,
        longest=longest_look,
    )
    next_look_at = await connection.fetchval(
        _sql.change_attempt,
        attempt.id,
        after.provider_id,
        msgspec.json.encode(after.names).decode(),
        after.url,
        after.word,
        after.error,
        *facts,
        after.giving_up,
        after.looks,
        0.0 if report.soon else look_in,
        after.expires_at,
    )
    sight = report.sight
    kept = [name for key, name in after.names.items() if key not in TEXTS]
    given = {None if sight is None else sight.provider_id, after.provider_id, *kept}
    names = {
        fitted(name, MAX_NAME) for name in given - {attempt.provider_id, *attempt.names.values()} if name
    }
    if names:
        await connection.execute(_sql.name_attempt, attempt.provider, sorted(names), attempt.id)
    return after._replace(next_look_at=next_look_at)


def _attempt_after(payment: Payment, attempt: Attempt, change: Change, report: Report) -> Attempt:
    """Return the attempt after a change. The names that a provider gave it first stay, since events come by them."""
    facts, sight = change.facts, report.sight
    after = attempt._replace(
        facts=facts,
        giving_up=_gives_up(payment, attempt, change, report),
        looks=0 if facts.state is not attempt.state else attempt.looks + report.look,
        error=fitted(report.error, MAX_ERROR) if report.error else None if sight else attempt.error,
    )
    if sight is None:
        return after
    url = sight.url if sight.url and len(sight.url) <= MAX_URL and "\0" not in sight.url else None
    given = {name: fitted(text, MAX_NAME) for name, text in sight.names.items() if text}
    return after._replace(
        provider_id=attempt.provider_id or fitted(sight.provider_id or "", MAX_NAME) or None,
        names={**given, **attempt.names},
        url=attempt.url or url,
        word=fitted(sight.word, MAX_WORD) or attempt.word,
        expires_at=sight.expires_at or attempt.expires_at,
    )


def fitted(given: str, most: int) -> str:
    """Return a provider's text as the database can hold it: a report must not fail for ever because of one."""
    return given.replace("\0", " ")[:most]


def _gives_up(payment: Payment, attempt: Attempt, change: Change, report: Report) -> bool:
    """Whether the provider is asked to close the attempt: by a wish, or as it is open there and closed here."""
    if change.facts.state in OPEN_STATES:
        return payment.wish is not None or attempt.giving_up or Effect.GIVE_UP in change.effects
    if change.facts.state in MONEY_STATES:
        return False
    return Effect.GIVE_UP in change.effects or (attempt.giving_up and report.sight is None)


def _kind(payment: Payment, attempt: Attempt, report: Report) -> str:
    if isinstance(report.seen, Dispute):
        return "dispute"
    if isinstance(report.seen, Sight):
        return str(seen_of(payment.asked(attempt), attempt.facts, report.seen))
    return str(report.seen)


def _data(
    before: Attempt, after: Attempt, change: Change, report: Report, postings: list[dict[str, Any]]
) -> dict[str, Any]:
    seen, sight = report.seen, report.sight
    told: dict[str, Any] = {}
    if isinstance(seen, Dispute):
        told = {"amount": seen.amount, "currency": seen.currency}
    if sight is not None:
        told = {
            "word": fitted(sight.word, MAX_WORD) or None,
            "amount": sight.amount,
            "currency": sight.currency,
            "refunded": sight.refunded,
        }
    return {
        "before": str(before.state),
        "after": str(after.state),
        "provider": after.provider,
        **told,
        "error": after.error if report.error else None,
        "note": change.note,
        "reason": report.reason,
        "postings": postings or None,
    }
