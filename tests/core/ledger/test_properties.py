"""Random sequences of every operation against the model: one caller step by step, then several posters at once.

`make fuzz` searches longer, with other examples each time: `--hypothesis-profile=fuzz`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from core.errors import Refusal
from core.ledger import holds, transfers
from core.ledger.accounts import AccountState, Limits, Opening, change_account, open_accounts
from core.ledger.directory import Directory
from core.ledger.items import Condition, Leg, Operation, Outcome, Posting, operation_id
from core.ledger.posting import post
from tests.core.ledger.book import PRINCIPAL, Book
from tests.core.ledger.model import TOP, Account, Model, Transfer

SEARCH = (
    settings.get_profile("fuzz")
    if settings.get_current_profile_name() == "fuzz"
    else settings(
        max_examples=40,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
)

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
wishes = (
    new_transfers
    | new_transfers
    | new_transfers
    | new_holds
    | captures
    | captures
    | voids
    | extensions
    | reversals
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

TABLES = (
    "accounts, account_profiles, account_windows, window_usage, batches, keys, refusals, transfers, entries, "
    "backdated_entries, reversed_amounts, holds, hold_events, account_events, feed, feed_gaps"
)


@contextmanager
def refusal(code: str) -> Iterator[None]:
    """Expect a Refusal of this code."""
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.code == code


class Pair:
    """The ledger and the model, side by side."""

    def __init__(self, book: Book, accounts: dict[str, Limits]) -> None:
        self.book = book
        self.accounts = {"cash": Limits(floor=None), "bank": Limits(floor=None), **accounts}
        self.model = Model(datetime.now(UTC))
        self.directory = Directory()
        self.sent: list[list[Posting]] = []

    async def begin(self) -> None:
        """Empty the ledger, open the accounts and give each a hundred, as far as its limits allow."""
        await self.book.owner.execute(f"TRUNCATE {TABLES}")
        await self.book.owner.execute(
            "UPDATE feed_head SET position = 0, digest = '', "
            "batch = (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM batch_seq)"
        )
        openings = [
            Opening(code, "EUR" if code in EUROS else "USD", limits) for code, limits in self.accounts.items()
        ]
        await open_accounts(self.book.database, openings, PRINCIPAL)
        for opening in openings:
            self.model.state.accounts[opening.code] = Account(opening.currency, opening.limits)
        gifts = tuple(
            Wish(Operation.TRANSFER, 100 + place, (Leg("cash", -100), Leg(code, 100)))
            for place, code in enumerate(("a", "b", "c", "d"))
        )
        await self.take(Batch(gifts))

    async def take(self, step: Step) -> None:
        match step:
            case Batch():
                postings = [posting for wish in step.wishes if (posting := await self.prepare(wish))]
                await self.compare(postings, dry_run=step.dry_run)
            case Change():
                await self.change(step)
            case Repeat():
                again = self.sent[step.batch % len(self.sent)]
                await self.compare([*again, *reversed(again)], dry_run=False)
            case Expire():
                while await holds.expire_due(self.book.database, self.directory):
                    pass
                self.model.expire()

    async def prepare(self, wish: Wish) -> Posting | None:
        """Make the posting, as the service's callers do; None when what it names is not there, in both worlds."""
        id_ = operation_id(PRINCIPAL, str(wish.key))
        known = self.model.state.transfers if wish.operation is Operation.REVERSAL else self.model.state.holds
        targets = [*known, operation_id(PRINCIPAL, "of nothing")]
        target = targets[wish.target % len(targets)]
        if wish.operation in {Operation.TRANSFER, Operation.HOLD}:
            return Posting(
                id=id_,
                principal_id=PRINCIPAL,
                legs=wish.legs,
                operation=wish.operation,
                currency=wish.currency,
                conditions=wish.conditions,
                effective_at=wish.effective_at,
                expires_at=wish.expires_at,
                group=wish.group,
            )
        if wish.operation is Operation.REVERSAL:
            return await self.prepare_reversal(id_, target, wish)
        if target not in self.model.state.holds:
            with refusal("hold_not_found"):
                await holds.get_hold(self.book.database, self.directory, target)
            return None
        hold = await holds.get_hold(self.book.database, self.directory, target)
        if wish.operation is Operation.CAPTURE:
            return holds.capture(hold, id_=id_, principal_id=PRINCIPAL, amount=wish.amount)
        if wish.operation is Operation.VOID:
            return holds.void(hold, id_=id_, principal_id=PRINCIPAL)
        return holds.extend(hold, id_=id_, principal_id=PRINCIPAL, expires_at=wish.expires_at)

    async def prepare_reversal(self, id_: UUID, target: UUID, wish: Wish) -> Posting | None:
        original = self.model.state.transfers.get(target)
        with nullcontext() if (code := self.why_not_reversible(original, wish)) is None else refusal(code):
            return await transfers.prepare_reversal(
                self.book.database,
                target,
                id_=id_,
                principal_id=PRINCIPAL,
                amount=wish.amount,
                effective_at=wish.effective_at,
            )
        return None

    def why_not_reversible(self, original: Transfer | None, wish: Wish) -> str | None:
        if original is None:
            return "transfer_not_found"
        currencies = {self.model.state.accounts[leg.account].currency for leg in original.legs}
        if original.is_reversal or (wish.amount is not None and len(currencies) > 1):
            return "not_reversible"
        return None

    async def compare(self, postings: list[Posting], *, dry_run: bool) -> None:
        if not postings:
            return
        if not dry_run:
            self.sent.append(postings)
        outcomes = await post(self.book.database, self.directory, postings, dry_run=dry_run)
        expected = self.model.dry_run(postings) if dry_run else self.model.post(postings)
        for posting, outcome, result in zip(postings, outcomes, expected, strict=True):
            assert shown(outcome) == (result.code, result.replayed, result.entries), posting
            event(f"{posting.operation.name.lower()} {result.code}{' again' if result.replayed else ''}")
        await self.compare_accounts()

    async def change(self, step: Change) -> None:
        account = self.model.state.accounts[step.account]
        code = None
        if account.state == "closed":
            code = "account_closed"
        elif step.state == "closed" and (account.balance or account.held):
            code = "account_not_empty"
        changed = msgspec.structs.asdict(step.limits) if step.limits is not None else None
        with nullcontext() if code is None else refusal(code):
            await change_account(self.book.database, step.account, state=step.state, limits=changed)
        if code is None:
            account.state = step.state or account.state
            account.limits = step.limits or account.limits

    async def compare_accounts(self) -> None:
        rows = await self.book.owner.fetch("SELECT code, balance, held, version FROM accounts")
        assert {row["code"]: tuple(row)[1:] for row in rows} == {
            code: (account.balance, account.held, account.version)
            for code, account in self.model.state.accounts.items()
        }

    async def finish(self) -> None:
        await self.compare_accounts()
        await self.book.seal()
        assert await self.book.faults() == []


def shown(outcome: Outcome) -> tuple[str, bool, tuple[tuple[str, int, int, int], ...]]:
    return outcome.kind.code, outcome.replayed, tuple(tuple(entry) for entry in outcome.entries)  # type: ignore[misc]


@SEARCH
@given(accounts=account_limits, program=steps)
async def test_ledger_does_what_the_model_does(
    book: Book, accounts: dict[str, Limits], program: list[Step]
) -> None:
    pair = Pair(book, accounts)
    began = datetime.now(UTC).date()
    await pair.begin()
    for step in program:
        await pair.take(step)
    assume(datetime.now(UTC).date() == began)  # the model knows one day only
    await pair.finish()
