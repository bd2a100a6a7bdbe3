"""Rules of money: levels and not events, so that every order and every repetition ends with the same balances."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from core.payments.rules import Asked, Change, Facts, Place, see, suspended
from core.payments.states import State
from core.providers.protocol import Sight, Standing

ASKED = Asked(100, "EUR")
NEW = Facts(State.CREATED)


def paid(amount: int | None = 100, **more: Any) -> Sight:
    return Sight(Standing.PAID, amount=amount, currency=None if amount is None else "EUR")._replace(**more)


def run(sights: list[Sight], asked: Asked = ASKED) -> tuple[Facts, Counter[tuple[Place, str]], list[str]]:
    """Return the facts in the end, the balances in each place and currency, and the kinds of the postings."""
    facts, balances, kinds, levels = NEW, Counter[tuple[Place, str]](), list[str](), set[str]()
    for sight in sights:
        change: Change = see(asked, facts, sight)
        for movement in change.movements:
            assert movement.level not in levels
            levels.add(movement.level)
            kinds.append(movement.kind)
            for source, target, amount in movement.pairs:
                balances[source, movement.currency] -= amount
                balances[target, movement.currency] += amount
        facts = change.facts
    assert balances[Place.SUSPENSE, "EUR"] == facts.on_suspense
    return facts, Counter({place: amount for place, amount in balances.items() if amount}), kinds


M, S, C = (Place.MERCHANT, "EUR"), (Place.SUSPENSE, "EUR"), (Place.CLEARING, "EUR")


@pytest.mark.parametrize(
    ("sights", "state", "balances"),
    [
        ([paid()], State.PAID, {M: 100, C: -100}),
        ([paid(None)], State.PAID, {M: 100, C: -100}),
        ([paid(), paid()], State.PAID, {M: 100, C: -100}),
        ([paid(fee=3)], State.PAID, {M: 97, C: -97}),
        ([paid(), paid(fee=3)], State.PAID, {M: 97, C: -97}),
        ([paid(refunded=40)], State.PAID, {M: 60, C: -60}),
        ([paid(refunded=40), paid(), paid(refunded=100)], State.PAID, {}),
        ([paid(99)], State.MISMATCHED, {S: 99, C: -99}),
        ([paid(99), paid(100)], State.PAID, {M: 100, C: -100}),
        ([paid(100), paid(99)], State.PAID, {M: 100, C: -100}),
        ([paid(99), paid(None)], State.MISMATCHED, {S: 99, C: -99}),
        ([paid(150)], State.MISMATCHED, {S: 150, C: -150}),
        ([paid(150), paid()], State.PAID, {M: 100, S: 50, C: -150}),
        ([paid(), paid(150)], State.PAID, {M: 100, S: 50, C: -150}),
        ([paid(150), paid(), paid(150, refunded=50)], State.PAID, {M: 100, C: -100}),
        ([paid(99, fee=2), paid(99, refunded=50)], State.MISMATCHED, {S: 47, C: -47}),
        (
            [paid(100, currency="USD")],
            State.MISMATCHED,
            {(Place.SUSPENSE, "USD"): 100, (Place.CLEARING, "USD"): -100},
        ),
    ],
)
def test_money_ends_where_it_belongs(sights: list[Sight], state: State, balances: dict[object, int]) -> None:
    facts, found, _ = run(sights)
    assert (facts.state, found) == (state, balances)


SIGHTS = st.builds(
    paid,
    st.sampled_from([100, 100, 60, 130]),
    refunded=st.sampled_from([None, 0, 30, 60]),
    fee=st.sampled_from([None, 3]),
    currency=st.sampled_from(["EUR", "EUR", "USD"]),
) | st.builds(Sight, st.sampled_from(list(Standing)[:2] + list(Standing)[3:]))


@search(max_examples=150)
@given(st.lists(SIGHTS, max_size=6), st.integers(0, 2**32))
def test_sights_of_money_commute(sights: list[Sight], seed: int) -> None:
    other = [*sights, *sights[:2]]
    random.Random(seed).shuffle(other)
    facts, balances, _ = run(sights)
    shuffled, found, _ = run(other)
    assert found == balances
    assert sum(balances.values()) == 0
    if facts.state in {State.PAID, State.MISMATCHED}:
        assert shuffled == facts
    assert balances[C] == -(facts.received - facts.refunded - facts.fee)


def test_a_second_payment_of_the_same_thing_is_no_income() -> None:
    facts, balances, kinds = run([paid()], ASKED._replace(paid_elsewhere=True))
    assert (facts.state, balances, kinds) == (State.MISMATCHED, {S: 100, C: -100}, ["payment.paid"])
    # A provider that tells no amounts is believed to have charged what was asked for.
    assert run([paid(None), paid(None)], ASKED._replace(paid_elsewhere=True)) == (facts, balances, kinds)


def test_what_the_merchant_cannot_take_lies_in_suspense() -> None:
    (movement,) = see(ASKED, NEW, paid(fee=3)).movements
    elsewhere, more = suspended(movement)
    assert more == 97
    assert {side for pair in elsewhere.pairs for side in pair[:2]} == {Place.CLEARING, Place.SUSPENSE}
    # The next sight sets it right.
    facts = see(ASKED, NEW, paid(fee=3)).facts._replace(on_suspense=97)
    (corrected,) = see(ASKED, facts, paid(fee=3)).movements
    assert corrected.pairs == ((Place.SUSPENSE, Place.MERCHANT, 97),)


@pytest.mark.parametrize(
    ("wish", "word", "state"),
    [
        (None, Standing.EXPIRED, State.EXPIRED),
        ("cancel", Standing.EXPIRED, State.CANCELED),
        ("expire", Standing.CANCELED, State.EXPIRED),
        ("cancel", Standing.FAILED, State.FAILED),
    ],
)
def test_a_wish_names_the_end(wish: str | None, word: Standing, state: State) -> None:
    assert see(ASKED._replace(wish=wish), NEW, Sight(word)).facts.state is state


def test_money_without_a_currency_is_not_in_the_ledger() -> None:
    change = see(Asked(100, "XXX"), NEW, Sight(Standing.PAID, amount=7, currency="USD"))
    assert (change.facts, change.movements) == (Facts(State.PAID, received=100), ())
