"""Random programs for the ledger: what hypothesis draws for the property tests."""

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import strategies as st

from core.ledger.accounts import AccountState, Limits
from core.ledger.items import Condition, Leg, Operation
from tests.core.ledger.model import TOP

LONG_AGO = datetime(2020, 2, 29, 12, tzinfo=UTC)
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
DOLLARS = ("cash", "a", "b", "c", "d")
EUROS = ("bank", "e")
NOBODY = "nobody"


@dataclass(frozen=True)
class Wish:
    """One item as it is drawn; what it names may or may not be there when its turn comes."""

    operation: Operation
    key: int
    legs: tuple[Leg, ...] = ()
    target: int = 0  # the how-manieth hold or transfer, one beyond the last for none
    amount: int | None = None
    group: int = 0
    currency: str | None = None
    conditions: tuple[Condition, ...] = ()
    effective_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Batch:
    """Items in order."""

    wishes: tuple[Wish, ...]
    dry_run: bool = False


@dataclass(frozen=True)
class Change:
    """A new state, or other limits, for an account."""

    account: str
    state: AccountState | None
    limits: Limits | None


@dataclass(frozen=True)
class Expire:
    """The expiry job's turn."""


@dataclass(frozen=True)
class Repeat:
    """An earlier batch, sent again: all of it, and its items in the other order."""

    batch: int


Step = Batch | Change | Expire | Repeat

amounts = st.sampled_from([1, 2, 3, 5, 7, 10, 20, 33, 50, 100]) | st.integers(1, 60)
keys = st.integers(0, 40)
limits = st.builds(
    Limits,
    floor=st.sampled_from([0, 0, 0, None, -40]),
    ceiling=st.sampled_from([None, None, None, 120]),
    transfer_max=st.sampled_from([None, None, None, 40]),
    hour_amount_max=st.sampled_from([None, None, None, 90]),
    hour_count_max=st.sampled_from([None, None, None, 4]),
    day_amount_max=st.sampled_from([None, None, None, 70]),
    day_count_max=st.sampled_from([None, None, None, 3]),
)


@st.composite
def balanced(draw: st.DrawFn, codes: tuple[str, ...]) -> tuple[Leg, ...]:
    """Two to five legs that sum to zero; an account may occur more than once."""
    account = st.sampled_from(codes)
    if draw(st.integers(0, 3)):
        amount = draw(amounts | st.just(TOP)) if not draw(st.integers(0, 9)) else draw(amounts)
        return Leg(draw(account), -amount), Leg(draw(account), amount)
    signed = amounts.flatmap(lambda amount: st.sampled_from([amount, -amount]))
    legs = [Leg(draw(account), draw(signed)) for _ in range(draw(st.integers(2, 4)))]
    total = sum(leg.amount for leg in legs)
    return (*legs, Leg(draw(account), -total)) if total else tuple(legs)


@st.composite
def hold_legs(draw: st.DrawFn) -> tuple[Leg, ...]:
    """A source and one to four destinations."""
    source = draw(st.sampled_from(DOLLARS))
    others = st.sampled_from([code for code in DOLLARS if code != source])
    parts = draw(st.lists(amounts, min_size=1, max_size=4))
    return Leg(source, -sum(parts)), *(Leg(draw(others), part) for part in parts)


@st.composite
def transfer_legs(draw: st.DrawFn) -> tuple[Leg, ...]:
    """Mostly sound; now and then in two currencies, unbalanced, or naming nobody."""
    match draw(st.integers(0, 11)):
        case 0:
            return draw(balanced(DOLLARS)) + draw(balanced(EUROS))
        case 1:
            return Leg(draw(st.sampled_from(DOLLARS)), -5), Leg(draw(st.sampled_from(EUROS)), 5)
        case 2:
            return Leg(draw(st.sampled_from(DOLLARS)), -5), Leg(draw(st.sampled_from(DOLLARS)), draw(amounts))
        case 3:
            return Leg(draw(st.sampled_from(DOLLARS)), -5), Leg(NOBODY, 5)
        case 4:
            return draw(balanced(EUROS))
        case _:
            return draw(balanced(DOLLARS))


conditions = st.builds(
    Condition,
    st.sampled_from((*DOLLARS, NOBODY)),
    version=st.none() | st.integers(0, 4),
    balance_at_least=st.none() | st.integers(-20, 40),
    balance_at_most=st.none() | st.integers(0, 150),
    revision=st.sampled_from([None, None, None, 1, 2, 3, 4]),
    available_at_least=st.none() | st.integers(-20, 40),
    available_at_most=st.none() | st.integers(0, 150),
)
few_conditions = (
    st.just(()) | st.just(()) | st.just(()) | st.lists(conditions, min_size=1, max_size=2).map(tuple)
)
effective_times = st.sampled_from([None, None, LONG_AGO])
some_amount = st.none() | amounts

new_transfers = st.builds(
    Wish,
    st.just(Operation.TRANSFER),
    keys,
    transfer_legs(),
    currency=st.sampled_from([None, None, None, "USD", "EUR"]),
    conditions=few_conditions,
    effective_at=effective_times,
    group=st.sampled_from([0, 0, 1, 2]),
)
new_holds = st.builds(
    Wish,
    st.just(Operation.HOLD),
    keys,
    hold_legs(),
    conditions=few_conditions,
    expires_at=st.sampled_from([None, FAR_AHEAD, LONG_AGO]),
    group=st.sampled_from([0, 0, 1]),
)
targets = st.integers(0, 59)
captures = st.builds(Wish, st.just(Operation.CAPTURE), keys, target=targets, amount=some_amount)
voids = st.builds(Wish, st.just(Operation.VOID), keys, target=targets)
extensions = st.builds(
    Wish,
    st.just(Operation.EXTEND),
    keys,
    target=keys,
    expires_at=st.sampled_from([None, FAR_AHEAD, LONG_AGO]),
)
reversals = st.builds(
    Wish, st.just(Operation.REVERSAL), keys, target=targets, amount=some_amount, effective_at=effective_times
)
wishes = st.one_of(
    new_transfers, new_transfers, new_transfers, new_holds, captures, captures, voids, extensions, reversals
)
batches = st.builds(
    Batch, st.lists(wishes, min_size=1, max_size=8).map(tuple), st.sampled_from([False] * 5 + [True])
)
changes = st.builds(
    Change,
    st.sampled_from((*DOLLARS, *EUROS)),
    st.sampled_from([None, "open", "frozen", "closed"]),
    st.none() | limits,
)
repeats = st.builds(Repeat, st.integers(0, 59))
steps = st.lists(
    batches | batches | batches | batches | changes | repeats | st.just(Expire()), min_size=8, max_size=16
)
account_limits = st.fixed_dictionaries(dict.fromkeys(("a", "b", "c", "d", "e"), limits))

streams = st.lists(
    st.lists(st.lists(wishes, min_size=1, max_size=5).map(tuple), min_size=1, max_size=3),
    min_size=3,
    max_size=8,
)
