"""The table of states: every pair has a row, and its promises hold over every order of what is seen."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from core.payments.states import (
    CLOSED_STATES,
    MONEY_STATES,
    OPEN_STATES,
    TABLE,
    Effect,
    Seen,
    State,
    chart,
    overall,
    transition,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "payments.md"
ASKED = {Seen.CANCEL_ASKED, Seen.EXPIRE_ASKED}
ON_MONEY = {Seen.ACCEPTED, Seen.RETURNED}
SAYS_NOTHING = {Seen.UNKNOWN, Seen.UNSENT, *ASKED, *ON_MONEY}
# Letters of states: c created, p pending, r processing, u unknown, P paid, M mismatched, f failed, x canceled,
# e expired.
LETTER = dict(zip(State, "cpruPMfxe", strict=True))
# The whole table, written a second time and by hand: a row a state, a column for each thing seen, in the order of Seen.
#         open processing paid different failed canceled expired absent declined unsent unknown cancel expire
#         accepted returned
WRITTEN = {
    State.CREATED: "p r P M f x e c f f u c c c c",
    State.PENDING: "p r P M f x e p p p p p p p p",
    State.PROCESSING: "r r P M f x e r r r r r r r r",
    State.UNKNOWN: "p r P M f x e f f u u u u u u",
    State.PAID: "P P P P P P P P P P P P P P P",
    State.MISMATCHED: "M M P M M M M M M M M M M P M",
    State.FAILED: "f f P M f f f f f f f f f f f",
    State.CANCELED: "x x P M x x x x x x x x x x x",
    State.EXPIRED: "e e P M e e e e e e e e e e e",
}


def test_every_pair_leads_where_it_is_written() -> None:
    assert {
        state: " ".join(LETTER[row[seen].state] for seen in Seen) for state, row in TABLE.items()
    } == WRITTEN


@pytest.mark.parametrize(("state", "seen"), list(product(State, Seen)))
def test_the_promises_hold_for_every_pair(state: State, seen: Seen) -> None:
    then, effects = transition(state, seen)
    if state is State.PAID:
        assert then is State.PAID
    if state in MONEY_STATES:
        assert then in MONEY_STATES
    if state in CLOSED_STATES:
        assert then in {state} | MONEY_STATES
    if seen in ASKED:
        # A wish alone closes nothing, and comes too late for money.
        assert then is state
        assert (Effect.REFUSE in effects) == (state in MONEY_STATES)
        assert (Effect.GIVE_UP in effects) == (state in OPEN_STATES)
    if seen in ON_MONEY:
        # A person's word on money is about money that has come, and moves nothing else.
        assert (Effect.REFUSE in effects) == (state not in MONEY_STATES)
    if state is State.UNKNOWN and seen in SAYS_NOTHING:
        assert then is State.UNKNOWN
    if Effect.NEXT in effects:
        # Another provider is tried from CREATED alone, and only after a certain no.
        assert (state, then) == (State.CREATED, State.FAILED)
        assert seen in {Seen.DECLINED, Seen.UNSENT}
    assert (Effect.COLLECT in effects) == (seen is Seen.PAID)
    assert (Effect.SUSPEND in effects) == (seen is Seen.DIFFERENT)


def run(sights: list[Seen]) -> State:
    state = State.CREATED
    for seen in sights:
        state = transition(state, seen).state
    return state


def group(state: State) -> object:
    return "closed" if state in CLOSED_STATES else state


# A provider that has begun: its own facts, in any order, any number of times, with calls that tell nothing between.
FACTS = st.lists(st.sampled_from([*Seen][:7]), min_size=1, max_size=6)


@search(max_examples=100)
@given(
    FACTS, st.randoms(use_true_random=False), st.lists(st.sampled_from([Seen.UNKNOWN, *ASKED]), max_size=4)
)
def test_sights_commute(facts: list[Seen], shuffler: object, noise: list[Seen]) -> None:
    other = [*facts, *facts[:2], *noise]
    shuffler.shuffle(other)  # type: ignore[attr-defined] # random.Random
    assert group(run(facts)) == group(run(other))
    if Seen.PAID in facts:
        assert run(other) is State.PAID
    elif Seen.DIFFERENT in facts:
        assert run(other) is State.MISMATCHED


@search(max_examples=100)
@given(st.lists(st.sampled_from(list(Seen)), max_size=12))
def test_no_schedule_loses_money_or_ends_the_unknown_by_itself(sights: list[Seen]) -> None:
    state = State.CREATED
    for seen in sights:
        after = transition(state, seen).state
        if state is State.UNKNOWN and after is not State.UNKNOWN:
            assert seen not in SAYS_NOTHING
        state = after
    assert (state in MONEY_STATES) == bool({Seen.PAID, Seen.DIFFERENT} & set(sights))


def test_the_payment_is_named_by_its_attempts() -> None:
    for one, other in product(State, State):
        state = overall([one, other])
        assert state in {one, other}
        if State.PAID in {one, other}:
            assert state is State.PAID
        elif {one, other} & OPEN_STATES:
            assert state not in CLOSED_STATES
        elif {one, other} <= CLOSED_STATES:
            assert state is other


def test_the_chart_in_the_documents_is_that_of_the_table() -> None:
    assert f"```mermaid\n{chart()}\n```" in DOCUMENT.read_text()
