"""Batches: order, twins, groups, dry runs, and what is as large as it may be."""

import asyncio

import asyncpg
import pytest

from core.errors import Refusal
from core.ledger import holds
from core.ledger.accounts import change_account
from core.ledger.items import MAX_CALL_ITEMS, MAX_CALL_LEGS, Operation, Posting, operation_id
from core.money import MAX_AMOUNT_MINOR
from tests.core.ledger.book import Book, codes, condition, pay, posting

TOP = MAX_AMOUNT_MINOR


@pytest.fixture
async def funded(book: Book) -> Book:
    """`a` and `b` with 100 each, `cash` without a floor."""
    await book.open("a", "b")
    await book.fund(100, "a", "b")
    return book


async def test_items_are_done_in_order_each_with_its_own_outcome(funded: Book) -> None:
    outcomes = await funded.call(
        pay("1", "a", "b", 90), pay("2", "a", "b", 20), pay("3", "b", "a", 10), pay("4", "a", "b", 20)
    )
    assert codes(outcomes) == ["posted", "insufficient_funds", "posted", "posted"]
    assert (outcomes[1].account, outcomes[1].figure) == ("a", 10)
    assert [entry.version for outcome in outcomes for entry in outcome.entries if entry.account == "a"] == [
        2,
        3,
        4,
    ]
    assert await funded.balances("a", "b") == [0, 200]


async def test_one_key_many_times_in_a_batch(funded: Book) -> None:
    same = [pay("k", "a", "b", 60) for _ in range(5)]
    outcomes = await funded.call(*same)
    assert codes(outcomes) == ["posted"] + ["again posted"] * 4
    assert len({(outcome.no, outcome.entries, outcome.recorded_at) for outcome in outcomes}) == 1
    refused = await funded.call(*[pay("n", "a", "b", 60) for _ in range(3)])
    assert codes(refused) == ["insufficient_funds", "again insufficient_funds", "again insufficient_funds"]
    assert len({(outcome.account, outcome.figure) for outcome in refused}) == 1


async def test_a_conflict_between_two_twins_settles_nothing(funded: Book) -> None:
    one, other = pay("k", "a", "b", 1), pay("k", "a", "b", 2, kind="fee")
    outcomes = await funded.call(one, other, one, other, other, one)
    conflict = "idempotency_conflict"
    assert codes(outcomes) == ["posted", conflict, "again posted", conflict, conflict, "again posted"]
    assert all(outcome.differs == ("legs", "kind") for outcome in outcomes if outcome.differs)
    assert codes(await funded.call(other, one)) == ["idempotency_conflict", "again posted"]
    assert await funded.balances("a") == [99]


async def test_a_refusal_that_does_not_freeze_leaves_the_key_to_a_twin(funded: Book) -> None:
    outcomes = await funded.call(
        pay("k", "a", "nobody", 5), pay("k", "a", "b", 5), pay("k", "a", "nobody", 5)
    )
    assert codes(outcomes) == ["account_not_found", "posted", "idempotency_conflict"]


async def test_group_is_done_together_or_not_at_all(funded: Book) -> None:
    outcomes = await funded.call(
        pay("1", "a", "b", 10, group=1), pay("2", "b", "a", 5, group=1),
        pay("3", "a", "b", 50, group=2), pay("4", "a", "b", 50, group=2), pay("5", "b", "a", 1, group=2),
        pay("6", "a", "b", 95),
    )  # fmt: skip
    assert codes(outcomes) == [
        "posted", "posted", "group_failed", "insufficient_funds", "group_failed", "posted",
    ]  # fmt: skip
    assert await funded.balances("a", "b") == [0, 200]
    # Only the culprit's outcome is kept; the others' keys are free.
    again = await funded.call(pay("3", "cash", "b", 50), pay("4", "a", "b", 50), pay("5", "b", "a", 1))
    assert codes(again) == ["posted", "again insufficient_funds", "posted"]
    assert await funded.faults() == []


async def test_group_that_fails_undoes_holds_and_captures(funded: Book) -> None:
    hold = await funded.hold("h", ("a", -40), ("b", 40))

    def capture(key: str, group: int) -> Posting:
        item = holds.capture(hold, id_=operation_id(1, key), principal_id=1, amount=15)
        item.group = group
        return item

    culprit = pay("no", "b", "a", 10_000, group=1)
    new_hold = posting("h2", ("a", -10), ("b", 10), operation=Operation.HOLD, group=1)
    assert codes(await funded.call(capture("c1", 1), new_hold, culprit)) == [
        "group_failed", "group_failed", "insufficient_funds",
    ]  # fmt: skip
    account = await funded.account("a")
    assert (account.balance, account.held) == (100, 40)
    assert codes(await funded.call(capture("c1", 2), capture("c2", 2), capture("c3", 3))) == [
        "posted", "posted", "exceeds_hold",
    ]  # fmt: skip
    assert (await funded.account("a")).held == 10
    assert await funded.faults() == []


async def test_twin_of_an_item_that_its_group_undoes(funded: Book) -> None:
    first = pay("k", "a", "b", 10, group=1)
    no = pay("no", "a", "b", 500, group=1)
    outcomes = await funded.call(first, first, no, first, no, pay("k", "a", "b", 10))
    assert codes(outcomes) == [
        "group_failed", "group_failed", "insufficient_funds", "group_failed", "again insufficient_funds", "posted",
    ]  # fmt: skip
    assert await funded.balances("a") == [90]
    assert await funded.faults() == []


async def test_conflict_within_a_group_is_its_culprit(funded: Book) -> None:
    outcomes = await funded.call(
        pay("1", "a", "b", 1, group=1), pay("1", "a", "b", 2, group=1), pay("3", "a", "b", 3, group=1)
    )
    assert codes(outcomes) == ["group_failed", "idempotency_conflict", "group_failed"]
    assert codes(await funded.call(pay("1", "a", "b", 2))) == ["posted"]


async def test_what_was_done_before_stays_done_in_a_group_that_fails(funded: Book) -> None:
    done, refused = pay("done", "a", "b", 10), pay("refused", "a", "b", 500)
    await funded.call(done, refused)
    done.group = refused.group = 7
    outcomes = await funded.call(
        done, pay("x", "a", "b", 1, group=7), refused, done, pay("y", "a", "b", 1, group=7)
    )
    assert codes(outcomes) == [
        "again posted", "group_failed", "again insufficient_funds", "again posted", "group_failed",
    ]  # fmt: skip
    assert codes(await funded.call(done, pay("x", "a", "b", 1, group=7))) == ["again posted", "posted"]


async def test_group_failure_gives_windows_back(funded: Book) -> None:
    await change_account(funded.database, "a", limits={"day_amount_max": 50, "hour_count_max": 3})
    outcomes = await funded.call(
        pay("1", "a", "b", 30, group=1),
        pay("2", "a", "b", 30, group=1),
        pay("3", "a", "b", 50),
        pay("4", "a", "b", 1),
    )
    assert codes(outcomes) == ["group_failed", "daily_amount_exceeded", "posted", "daily_amount_exceeded"]
    assert (outcomes[1].figure, outcomes[3].figure) == (20, 0)


async def test_dry_run_leaves_no_trace(funded: Book) -> None:
    before = await funded.owner.fetchrow("SELECT last_value, (SELECT count(*) FROM keys) FROM batch_seq")
    items = [pay("1", "a", "b", 70), pay("1", "a", "b", 70), pay("2", "a", "b", 70), pay("2", "a", "b", 70)]
    expected = ["posted", "again posted", "insufficient_funds", "again insufficient_funds"]
    outcomes = await funded.call(*items, dry_run=True)
    assert codes(outcomes) == expected
    assert outcomes[0].entries[0].balance_after == 30
    assert outcomes[1].entries == outcomes[0].entries
    after = await funded.owner.fetchrow("SELECT last_value, (SELECT count(*) FROM keys) FROM batch_seq")
    assert after == before
    assert codes(await funded.call(*items)) == expected


async def test_largest_call(book: Book) -> None:
    await book.open("many", floor=None)
    await book.open("one")
    items = [
        posting(f"{n}", ("many", -1), ("one", 1), ("many", -2), ("one", 2)) for n in range(MAX_CALL_ITEMS)
    ]
    outcomes = await book.call(*items)
    assert set(codes(outcomes)) == {"posted"}
    assert [line.version for outcome in outcomes for line in outcome.entries if line.account == "one"] == [
        *range(1, 2 * MAX_CALL_ITEMS + 1)
    ]
    assert codes(await book.call(*reversed(items))) == ["again posted"] * MAX_CALL_ITEMS
    with pytest.raises(ValueError, match="more than one call"):
        await book.call(*items, pay("x", "many", "one", 1))
    await book.seal()
    assert await book.faults() == []


async def test_transfer_with_four_thousand_legs(book: Book) -> None:
    await book.open("many", floor=None)
    await book.open("one")
    half = MAX_CALL_LEGS // 2
    legs = [("many", -1)] * half + [("one", 1)] * half
    [outcome] = await book.call(posting("k", *legs))
    assert [line[2:] for line in outcome.entries[half:]] == [(n, n) for n in range(1, half + 1)]
    [again] = await book.call(posting("k", *legs))
    assert (again.replayed, again.entries) == (True, outcome.entries)
    assert await book.faults() == []


async def test_same_account_in_all_legs(funded: Book) -> None:
    [outcome] = await funded.call(posting("k", ("a", -100), ("a", 60), ("a", 40)))
    assert [(line.amount, line.version, line.balance_after) for line in outcome.entries] == [
        (-100, 2, 0), (60, 3, 60), (40, 4, 100),
    ]  # fmt: skip
    # The sum of the legs counts for limits, so the floor is not met on the way.
    [outcome] = await funded.call(posting("l", ("a", -150), ("a", 150)))
    assert (outcome.posted, outcome.entries[0].balance_after) == (True, -50)


async def test_highest_and_lowest_balance(book: Book) -> None:
    await book.open("low", "high", floor=None)
    outcomes = await book.call(
        pay("1", "low", "high", TOP), pay("2", "low", "high", 1), pay("3", "high", "low", TOP),
        pay("4", "high", "low", TOP), pay("5", "high", "low", 1),
        posting("6", ("high", TOP), ("high", TOP), ("low", -TOP), ("low", -TOP)),
    )  # fmt: skip
    assert codes(outcomes) == ["posted", "balance_overflow", "posted", "posted", "balance_overflow", "posted"]
    assert await book.balances("low", "high") == [-TOP, TOP]
    assert await book.faults() == []


async def test_limits_do_not_overflow(book: Book) -> None:
    await book.open("a", "b", floor=None, day_count_max=100, day_amount_max=TOP - 1, hour_amount_max=TOP)
    for code in ("a", "b"):
        await change_account(book.database, code, limits={"hour_amount_max": None, "day_amount_max": None})
    for number in range(
        4
    ):  # four times as much as a bigint holds; what is counted of it stays at the highest
        out, back = pay(f"out {number}", "a", "b", TOP), pay(f"back {number}", "b", "a", TOP)
        assert codes(await book.call(out, back)) == ["posted", "posted"]
    await change_account(book.database, "a", limits={"day_amount_max": TOP})
    [refused] = await book.call(pay("more", "a", "b", TOP))
    assert (refused.kind.code, refused.figure) == ("daily_amount_exceeded", 0)

    await book.open("deep", "any", floor=None)
    await book.call(
        pay("down", "deep", "any", TOP),
        posting("held", ("deep", -TOP), ("any", TOP), operation=Operation.HOLD),
    )
    await change_account(book.database, "deep", limits={"floor": TOP})
    [refused] = await book.call(pay("deeper", "deep", "any", 1, conditions=(condition("deep", at_most=0),)))
    assert refused.kind.code == "balance_overflow"
    await book.call(pay("up", "any", "deep", 5))
    [refused] = await book.call(pay("less", "deep", "any", 1))
    assert refused.kind.code == "insufficient_funds"
    assert await book.faults() == []


async def test_figures_of_limits_that_were_lowered(funded: Book) -> None:
    await change_account(funded.database, "a", limits={"day_amount_max": 60})
    await funded.call(pay("1", "a", "b", 50))
    await change_account(funded.database, "a", limits={"day_amount_max": 20})
    await change_account(funded.database, "b", limits={"ceiling": 30})
    outcomes = await funded.call(pay("2", "a", "cash", 1), pay("3", "cash", "b", 1))
    assert [(outcome.kind.code, outcome.figure) for outcome in outcomes] == [
        ("daily_amount_exceeded", 0), ("ceiling_exceeded", 0),
    ]  # fmt: skip


async def test_culprits_are_the_first_of_their_code(funded: Book) -> None:
    await funded.open("f1", "f2", "z")
    for code in ("f1", "f2"):
        await change_account(funded.database, code, state="frozen")
    await change_account(funded.database, "z", state="closed")
    legs = (("a", -3), ("f1", 1), ("f2", 1), ("b", 1))
    both = (condition("a", at_most=0), condition("b", at_least=0), condition("cash", at_most=-10_000))
    outcomes = await funded.call(
        posting("1", *legs),
        posting("2", *legs[:3], ("z", 1)),
        pay("3", "a", "b", 1, conditions=both),
        pay("4", "a", "b", 1, conditions=(*both, condition("b", at_least=10_000))),
        pay("5", "a", "b", 1, conditions=(condition("nobody"), condition("noone"))),
        pay("6", "a", "b", 1, conditions=(condition("a", version=1), condition("b", version=7))),
    )
    assert [(outcome.kind.code, outcome.account, outcome.figure) for outcome in outcomes] == [
        ("account_frozen", "f1", None), ("account_closed", "z", None), ("balance_too_high", "a", 99),
        ("balance_too_low", "b", 101), ("account_not_found", "nobody", None), ("version_mismatch", "b", 1),
    ]  # fmt: skip
    await funded.call(pay("7", "a", "b", 50))
    [again] = await funded.call(pay("3", "a", "b", 1, conditions=both))
    assert (again.replayed, again.account, again.figure) == (True, "a", 99)


async def test_unbalanced_in_two_currencies_is_a_mismatch(funded: Book) -> None:
    await funded.open("e", "f", currency="EUR", floor=None)
    outcomes = await funded.call(
        posting("1", ("a", -5), ("e", 5)), posting("2", ("a", -5), ("e", 4)),
        posting("3", ("a", -5), ("b", 5), ("e", -4), ("f", 4)),
        posting("4", ("a", -5), ("b", 5), ("e", -4), ("f", 4), currency="USD"),
        pay("5", "a", "b", 1, currency="USD"), pay("6", "a", "b", 1, currency="EUR"),
        posting("7", ("a", -5), ("b", 4)),
    )  # fmt: skip
    assert codes(outcomes) == [
        "currency_mismatch", "currency_mismatch", "posted", "currency_mismatch", "posted", "currency_mismatch",
        "legs_unbalanced",
    ]  # fmt: skip
    assert outcomes[-1].figure == -1


async def test_large_batch_goes_in_parts_between_others(book: Book) -> None:
    await book.open("a", floor=None)
    await book.open("b")
    items = [pay(f"{number}", "a", "b", 1, group=number // 600 + 1) for number in range(5_000)]
    done: list[str] = []

    async def batch() -> None:
        assert set(codes(await book.post(*items))) == {"posted"}
        done.append("batch")

    async def single() -> None:
        assert (await book.one(pay("single", "a", "b", 1))).posted
        done.append("single")

    await asyncio.gather(batch(), single())
    assert done == ["single", "batch"]
    assert await book.balances("b") == [5_001]


async def test_hold_takes_from_its_source_alone(funded: Book) -> None:
    for legs in (
        [("a", -60), ("b", -40), ("cash", 100)],
        [("a", -60), ("b", 65), ("a", -5)],
        [("a", -60), ("b", 60), ("b", 0)],
    ):
        with pytest.raises(Refusal) as caught:
            posting("h", *legs, operation=Operation.HOLD)
        assert caught.value.code == "invalid_request"
        # What Python were to let through the database would not.
        item = posting("h", *legs)
        item.operation = Operation.HOLD
        with pytest.raises(asyncpg.CheckViolationError):
            await funded.call(item)
    assert (await funded.account("a")).held == 0
