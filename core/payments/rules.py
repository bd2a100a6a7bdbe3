"""Rules: from an attempt and what is seen of it to its state and the money that moves, without a database.

The facts about money are levels that only rise: received, refunded, fee. A sight lifts them, and the difference is
posted, so a sight that comes twice, late or out of order moves nothing a second time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from core.payments.states import Effect, Seen, State, transition
from core.providers.protocol import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.providers.protocol import Sight

NO_CURRENCY: Final = "XXX"
"""ISO 4217's code for no currency: amounts in it are compared with nothing, and are not in the ledger."""

CANCEL: Final = "cancel"
EXPIRE: Final = "expire"


class Place(StrEnum):
    """A side of a movement: what the provider owes us, the merchant's account, the suspense account."""

    CLEARING = "clearing"
    MERCHANT = "merchant"
    SUSPENSE = "suspense"


class Pair(NamedTuple):
    """An amount in minor units that goes from one place to another; a negative one goes back."""

    source: Place
    target: Place
    amount: int


class Movement(NamedTuple):
    """A posting: its kind, the level that names it once for all, its pairs and its currency.

    A movement that counts `once` changes nothing where it was posted before, since no level shows that.
    """

    kind: str
    level: str
    pairs: tuple[Pair, ...]
    currency: str
    once: bool = False


class Asked(NamedTuple):
    """The payment as far as the rules need it: amount in minor units, and the wish that nobody pays any more."""

    amount: int
    currency: str
    wish: str | None = None
    paid_elsewhere: bool = False
    """Whether another attempt has brought the money already."""
    revision: int = 0


class Facts(NamedTuple):
    """An attempt's state and money, in minor units: `foreign` is in `foreign_currency`, all else in the payment's.

    `accepted` is the amount that a person has taken for what was asked for, 0 for none; `foreign_returned` the part of
    the foreign money that has gone back, by a person's hand or by a dispute.
    """

    state: State
    received: int = 0
    refunded: int = 0
    disputed: int = 0
    fee: int = 0
    on_suspense: int = 0
    foreign: int = 0
    foreign_currency: str | None = None
    accepted: int = 0
    foreign_returned: int = 0


class Dispute(NamedTuple):
    """An amount that a payer has taken back over the bank, negative when it was won back, under the provider's name.

    It is in the currency that was paid; None stands for the payment's.
    """

    id: str
    amount: int
    currency: str | None = None


class Change(NamedTuple):
    """The decision about an attempt: facts, effects, and the postings in their order; `note` says what is odd."""

    facts: Facts
    effects: frozenset[Effect]
    movements: tuple[Movement, ...] = ()
    note: str | None = None


_STANDINGS: Final = {
    Standing.OPEN: Seen.OPEN,
    Standing.PROCESSING: Seen.PROCESSING,
    Standing.FAILED: Seen.FAILED,
    Standing.CANCELED: Seen.CANCELED,
    Standing.EXPIRED: Seen.EXPIRED,
    Standing.ABSENT: Seen.ABSENT,
}


def seen_of(asked: Asked, facts: Facts, sight: Sight) -> Seen:
    """Return what a sight is for the table. Money counts as paid only if it is what was asked for, and comes once."""
    if sight.standing is Standing.ABSENT and facts.state is State.PENDING:
        # Nobody can pay what the provider does not know, and nobody wants it any more.
        return Seen.CANCELED if asked.wish is not None or asked.paid_elsewhere else Seen.ABSENT
    if sight.standing is not Standing.PAID:
        return _STANDINGS[sight.standing]
    if asked.paid_elsewhere and facts.state is not State.PAID:
        return Seen.DIFFERENT
    if asked.currency == NO_CURRENCY:
        return Seen.PAID
    if sight.amount is None and facts.state is State.MISMATCHED:
        return Seen.DIFFERENT  # what has come is known, and this says nothing else of it
    right = sight.amount in {None, asked.amount} and sight.currency in {None, asked.currency}
    return Seen.PAID if right else Seen.DIFFERENT


def see(asked: Asked, facts: Facts, sight: Sight) -> Change:
    """Decide what follows from a provider's account of the attempt."""
    seen = seen_of(asked, facts, sight)
    then = transition(facts.state, seen)
    state = _name_of_end(asked.wish, facts.state, then.state)
    note = _note(asked, facts, sight, seen, then.effects)
    effects = then.effects - {Effect.NOTE}
    if asked.currency == NO_CURRENCY:
        received = asked.amount if seen is Seen.PAID else facts.received
        return Change(facts._replace(state=state, received=received), effects, (), note)
    lifted = _lifted(asked, facts, sight, seen)._replace(state=state)
    moved, movements = _movements(asked, facts, lifted)
    known = seen is Seen.DIFFERENT and moved == facts
    return Change(moved, effects, movements, None if known else note)


def hear(facts: Facts, seen: Seen, asked: Asked) -> Change:
    """Decide what follows from the way in which a call ended, or from a wish."""
    then = transition(facts.state, seen)
    effects = then.effects if asked.wish is None else then.effects - {Effect.NEXT}
    note = f"{facts.state} was {seen} afterwards" if Effect.NOTE in effects else None
    return Change(facts._replace(state=then.state), effects - {Effect.NOTE}, (), note)


def accept(asked: Asked, facts: Facts) -> Change:
    """Decide what follows when a person lets the merchant have what lies in suspense, as if it had been asked for."""
    then = transition(facts.state, Seen.ACCEPTED)
    if Effect.REFUSE in then.effects or facts.on_suspense <= 0:
        return Change(facts, frozenset({Effect.REFUSE}))
    moved, movements = _movements(asked, facts, facts._replace(state=then.state, accepted=facts.received))
    return Change(moved, then.effects, movements)


def returned(asked: Asked, facts: Facts) -> Change:
    """Decide what follows when a person has given back at the provider what lies in suspense."""
    then = transition(facts.state, Seen.RETURNED)
    foreign = facts.foreign - facts.foreign_returned
    if Effect.REFUSE in then.effects or (facts.on_suspense <= 0 and not foreign):
        return Change(facts, frozenset({Effect.REFUSE}))
    if foreign and facts.foreign_currency is not None:
        back = Movement(
            "payment.foreign_returned",
            # A dispute may be won after all was returned, so the payment's own count names the posting.
            f"payment.foreign_returned:{facts.foreign}:{asked.revision}",
            (Pair(Place.SUSPENSE, Place.CLEARING, foreign),),
            facts.foreign_currency,
        )
        return Change(facts._replace(foreign_returned=facts.foreign), then.effects, (back,))
    refunded = (
        max(facts.received - max(facts.disputed, 0), facts.refunded)
        if facts.state is State.MISMATCHED
        else min(facts.received, facts.refunded + facts.on_suspense)
    )
    moved, movements = _movements(asked, facts, facts._replace(refunded=refunded))
    return Change(moved, then.effects, movements)


def dispute(asked: Asked, facts: Facts, disputed: Dispute) -> Change:
    """Decide what follows from a dispute. The caller sees to it that each is counted once."""
    if asked.currency == NO_CURRENCY or disputed.amount == 0:
        return Change(facts, frozenset(), (), f"dispute {disputed.id} of money that is not in the ledger")
    foreign = disputed.currency not in {None, asked.currency}
    place = Place.MERCHANT if facts.state is State.PAID and not foreign else Place.SUSPENSE
    way = "taken" if disputed.amount >= 0 else "returned"
    movement = Movement(
        f"payment.dispute_{way}",
        f"dispute:{disputed.id}:{way}",
        (Pair(place, Place.CLEARING, disputed.amount),),
        disputed.currency or asked.currency,
        once=True,
    )
    if foreign:
        if disputed.currency != facts.foreign_currency:
            note = f"dispute {disputed.id} of {disputed.currency}, in which nothing was seen to come"
            return Change(facts, frozenset(), (movement,), note)
        back = min(max(facts.foreign_returned + disputed.amount, 0), facts.foreign)
        return Change(facts._replace(foreign_returned=back), frozenset(), (movement,))
    after = facts._replace(
        disputed=facts.disputed + disputed.amount,
        on_suspense=facts.on_suspense - (disputed.amount if place is Place.SUSPENSE else 0),
    )
    return Change(after, frozenset(), (movement,))


def suspended(movement: Movement) -> tuple[Movement, int]:
    """Return a movement whose merchant part goes to the suspense account, and how much more lies there by that.

    Money that has moved at the provider is a fact. An account that is closed or empty cannot undo it.
    """
    more = sum(
        (pair.target is Place.MERCHANT) * pair.amount - (pair.source is Place.MERCHANT) * pair.amount
        for pair in movement.pairs
    )
    elsewhere = {Place.MERCHANT: Place.SUSPENSE}
    pairs = tuple(
        Pair(elsewhere.get(source, source), elsewhere.get(target, target), amount)
        for source, target, amount in movement.pairs
    )
    return movement._replace(pairs=tuple(pair for pair in pairs if pair.source is not pair.target)), more


def _name_of_end(wish: str | None, before: State, after: State) -> State:
    """Name the end of an attempt that was given up by the wish, whichever word the provider has for it."""
    if before is not after and wish is not None and after in {State.CANCELED, State.EXPIRED}:
        return State.CANCELED if wish == CANCEL else State.EXPIRED
    return after


def _lifted(asked: Asked, facts: Facts, sight: Sight, seen: Seen) -> Facts:
    """Return the facts with the sight's levels, where those are higher."""
    if seen not in {Seen.PAID, Seen.DIFFERENT}:
        # A refund may be told by a sight that says no more than that.
        if sight.refunded and sight.currency in {None, asked.currency}:
            return facts._replace(refunded=max(facts.refunded, min(sight.refunded, facts.received)))
        return facts
    if sight.currency not in {None, asked.currency}:
        if facts.foreign_currency not in {None, sight.currency} or not sight.amount:
            return facts
        amount = max(facts.foreign, sight.amount)
        return facts._replace(foreign=amount, foreign_currency=sight.currency)
    # Some providers tell no amounts. The amount is then the one that was asked for, unless another is known.
    known = facts.state is State.MISMATCHED or facts.accepted
    unsaid = facts.received if known else asked.amount
    received = max(facts.received, unsaid if sight.amount is None else sight.amount)
    refunded = max(facts.refunded, min(sight.refunded or 0, received))
    return facts._replace(
        received=received, refunded=refunded, fee=max(facts.fee, min(sight.fee or 0, received))
    )


def _level(asked: Asked, facts: Facts) -> int:
    """Return what ought to lie in suspense: all of it, or for a paid attempt what came beyond the amount."""
    if facts.state is State.PAID:
        return max(facts.received - max(asked.amount, facts.accepted) - facts.refunded, 0)
    return facts.received - facts.refunded - facts.fee - facts.disputed


def _movements(asked: Asked, before: Facts, after: Facts) -> tuple[Facts, tuple[Movement, ...]]:
    """Return the postings between two levels, and the facts with what lies in suspense then."""
    if after.received == 0 and after.foreign == 0:
        return after, ()
    currency, home = asked.currency, Place.MERCHANT if after.state is State.PAID else Place.SUSPENSE
    old = before._replace(state=after.state, accepted=after.accepted)
    got = old._replace(received=after.received)
    found: list[Movement] = []

    def move(kind: str, level: int | str, *pairs: Pair, currency: str = currency) -> None:
        some = tuple(pair for pair in pairs if pair.amount and pair.source is not pair.target)
        if some:
            found.append(Movement(kind, f"{kind}:{level}", some, currency))

    # The part in suspense that belongs to the merchant, since the right amount has been seen since.
    wrongly = before.on_suspense - _level(asked, old) if after.state is State.PAID else 0
    move(
        "payment.corrected",
        asked.revision,  # no level rises here, so the payment's own count names the posting
        Pair(Place.SUSPENSE, Place.MERCHANT, wrongly),
    )
    beyond = (
        _level(asked, got) - _level(asked, old) if home is Place.MERCHANT else got.received - old.received
    )
    fee = after.fee - before.fee
    move(
        "payment.paid",
        after.received,
        Pair(Place.CLEARING, Place.MERCHANT, got.received - old.received - beyond),
        Pair(Place.CLEARING, Place.SUSPENSE, beyond),
        *([Pair(home, Place.CLEARING, fee)] if got.received > old.received else []),
    )
    if got.received == old.received:
        move("payment.fee", after.fee, Pair(home, Place.CLEARING, fee))
    refund = after.refunded - before.refunded
    spared = (
        _level(asked, got) - _level(asked, got._replace(refunded=after.refunded))
        if home is Place.MERCHANT
        else refund
    )
    move(
        "payment.refunded",
        after.refunded,
        Pair(Place.SUSPENSE, Place.CLEARING, spared),
        Pair(Place.MERCHANT, Place.CLEARING, refund - spared),
    )
    if after.foreign_currency is not None:
        foreign = Pair(Place.CLEARING, Place.SUSPENSE, after.foreign - before.foreign)
        move("payment.foreign", after.foreign, foreign, currency=after.foreign_currency)
    return after._replace(on_suspense=before.on_suspense + _suspense_of(found, currency)), tuple(found)


def _suspense_of(movements: Sequence[Movement], currency: str) -> int:
    return sum(
        (pair.target is Place.SUSPENSE) * pair.amount - (pair.source is Place.SUSPENSE) * pair.amount
        for movement in movements
        if movement.currency == currency
        for pair in movement.pairs
    )


def _note(asked: Asked, facts: Facts, sight: Sight, seen: Seen, effects: frozenset[Effect]) -> str | None:
    """Return in words what of a sight contradicts the facts, None for nothing."""
    if seen is Seen.DIFFERENT:
        if asked.paid_elsewhere and facts.state is not State.PAID:
            return "another attempt was paid before, so the payer has paid twice"
        return f"paid {sight.amount} {sight.currency} where {asked.amount} {asked.currency} was asked for"
    if Effect.NOTE in effects:
        return f"{facts.state} was seen as {sight.standing} afterwards"
    if sight.refunded and sight.refunded > max(facts.received, sight.amount or asked.amount):
        return f"refunded {sight.refunded}, more than was received"
    return None
