"""Random sequences of every operation against the model: one caller step by step, then several posters at once.

`make fuzz` searches longer, with other examples each time: `--hypothesis-profile=fuzz`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, assume, event, given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

from core.database import Database, open_database
from core.errors import Refusal
from core.ledger import holds, transfers
from core.ledger.accounts import Limits, Opening, change_account, open_accounts
from core.ledger.items import Leg, Operation, Outcome, Posting, next_group, operation_id
from core.ledger.poster import Poster
from core.ledger.posting import post
from core.settings import Settings
from tests.core.ledger.book import PRINCIPAL, Book
from tests.core.ledger.model import Account, Model, Transfer, body_of
from tests.core.ledger.programs import (
    EUROS,
    Batch,
    Change,
    Expire,
    Repeat,
    Step,
    Wish,
    account_limits,
    changes,
    steps,
    streams,
    wishes,
)

SEARCH = (
    search_settings.get_profile("fuzz")
    if search_settings.get_current_profile_name() == "fuzz"
    else search_settings(
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
)

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
                while await holds.expire_due(self.book.database):
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
                await holds.get_hold(self.book.database, target)
            return None
        hold = await holds.get_hold(self.book.database, target)
        if wish.operation is Operation.CAPTURE:
            return holds.capture(hold, id_=id_, principal_id=PRINCIPAL, amount=wish.amount)
        if wish.operation is Operation.VOID:
            return holds.void(hold, id_=id_, principal_id=PRINCIPAL)
        return holds.extend(hold, id_=id_, principal_id=PRINCIPAL, expires_at=wish.expires_at)

    async def prepare_reversal(self, id_: UUID, target: UUID, wish: Wish) -> Posting | None:
        code = self.why_not_reversible(self.model.state.transfers.get(target), wish)
        prepared = transfers.prepare_reversal(
            self.book.database,
            target,
            id_=id_,
            principal_id=PRINCIPAL,
            amount=wish.amount,
            effective_at=wish.effective_at,
        )
        if code is None:
            return await prepared
        with refusal(code):
            await prepared
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
        outcomes = await post(self.book.database, postings, dry_run=dry_run)
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
            account.changes += 1
            account.state = step.state or account.state
            account.limits = step.limits or account.limits

    async def compare_accounts(self) -> None:
        rows = await self.book.owner.fetch(
            "SELECT code, balance, held, incoming, version, changes FROM accounts"
        )
        assert {row["code"]: tuple(row)[1:] for row in rows} == {
            code: (account.balance, account.held, account.incoming, account.version, account.changes)
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


Answers = list[tuple[Posting, Outcome]]


@pytest.fixture
async def databases(settings: Settings) -> AsyncIterator[list[Database]]:
    """What three processes would open."""
    opened = [await open_database(settings, size=2) for _ in range(3)]
    yield opened
    for database in opened:
        await database.close()


@SEARCH
@given(
    accounts=account_limits,
    prologue=st.lists(wishes, min_size=4, max_size=12).map(tuple),
    clients=streams,
    changed=st.lists(changes, max_size=3),
)
async def test_concurrent_posters_are_explained_by_one_order(
    book: Book,
    databases: list[Database],
    accounts: dict[str, Limits],
    prologue: tuple[Wish, ...],
    clients: list[list[tuple[Wish, ...]]],
    changed: list[Change],
) -> None:
    pair = Pair(book, accounts)
    began = datetime.now(UTC).date()
    await pair.begin()
    await pair.take(Batch(prologue))
    known = dict(pair.model.keys)
    last = await book.owner.fetchval("SELECT last_value FROM batch_seq")
    prepared = [[await numbered(pair, batch) for batch in stream] for stream in clients]
    answers = await run_at_once(book, databases, prepared, changed)
    assume(datetime.now(UTC).date() == began)

    check_keys(answers, known)
    await replay(pair, answers, last << 22)
    await pair.finish()


async def numbered(pair: Pair, batch: tuple[Wish, ...]) -> list[Posting]:
    """The postings of a client's batch, its groups numbered as no other's in the process."""
    postings = [posting for wish in batch if (posting := await pair.prepare(wish))]
    numbers = {posting.group: next_group() for posting in postings if posting.group}
    for posting in postings:
        posting.group = numbers.get(posting.group, 0)
    return postings


async def run_at_once(
    book: Book, databases: list[Database], streams: list[list[list[Posting]]], changes: list[Change]
) -> Answers:
    """Every stream in order, all streams beside each other through three posters, the jobs and changes beside them."""
    answers: Answers = []
    posters = [Poster(database, max_waiting=1_000) for database in databases]

    async def send(number: int, stream: list[list[Posting]]) -> None:
        for batch in stream:
            outcomes = await posters[number % len(posters)].submit_many(batch)
            answers.extend(zip(batch, outcomes, strict=True))

    async def change() -> None:
        for step in changes:
            limits = msgspec.structs.asdict(step.limits) if step.limits is not None else None
            with suppress(Refusal):
                await change_account(book.database, step.account, state=step.state, limits=limits)

    async def expire() -> None:
        while await holds.expire_due(databases[0]):
            pass

    await asyncio.gather(
        *(send(number, stream) for number, stream in enumerate(streams)),
        change(),
        expire(),
        expire(),
        book.seal(),
    )
    for poster in posters:
        await poster.close()
    return answers


def check_keys(answers: Answers, known: Mapping[UUID, object]) -> None:
    """Each key was decided once at most, and every other call with its body has got that decision."""
    decided = {
        posting.id: (posting, outcome)
        for posting, outcome in answers
        if outcome.kind.freezes and not outcome.replayed
    }
    assert len(decided) == sum(outcome.kind.freezes and not outcome.replayed for _, outcome in answers)
    assert not decided.keys() & known.keys()
    for posting, outcome in answers:
        if posting.id in decided and outcome.replayed:
            first, decision = decided[posting.id]
            assert body_of(posting) == body_of(first)
            assert shown(outcome)[::2] == shown(decision)[::2]
        elif outcome.replayed:
            assert posting.id in known
        elif outcome.kind.code == "idempotency_conflict" and posting.id in decided:
            assert body_of(posting) != body_of(decided[posting.id][0])


async def replay(pair: Pair, answers: Answers, since: int) -> None:
    """Do in the model, one after the other in the order of their numbers, what was done at once."""
    owner = pair.book.owner
    done: list[tuple[int, Any]] = [
        (outcome.no, (posting, outcome))
        for posting, outcome in answers
        if outcome.posted and not outcome.replayed
    ]
    expired = await owner.fetch(
        "SELECT e.no, h.id FROM hold_events AS e INNER JOIN holds AS h ON e.hold = h.no "
        "WHERE e.operation = 5 AND e.no > $1",
        since,
    )
    changed = await owner.fetch(
        "SELECT e.no, e.data, a.code FROM account_events AS e INNER JOIN accounts AS a ON e.account_id = a.id "
        "WHERE e.kind = 'account.updated' AND e.no > $1",
        since,
    )
    done += [(row["no"], row["id"]) for row in expired] + [(row["no"], row) for row in changed]
    for _, what in sorted(done, key=lambda each: each[0]):
        match what:
            case (Posting() as posting, outcome):
                posting.group = 0
                [result] = pair.model.post([posting])
                assert shown(outcome) == (result.code, result.replayed, result.entries), posting
                event(f"{posting.operation.name.lower()} posted")
            case UUID():
                pair.model.expire_hold(what)
            case row:
                data = msgspec.json.decode(row["data"])
                account = pair.model.state.accounts[row["code"]]
                account.changes += 1
                account.state, account.limits = data["state"], msgspec.convert(data["limits"], Limits)
