"""Balances at past times, by the time entries were recorded and by the time they took effect."""

import random
from datetime import UTC, datetime, timedelta

from core.ledger.accounts import balance_at, statement_page, version_before
from core.money import MAX_AMOUNT_MINOR
from tests.core.ledger.book import Book, pay

NOW = datetime.now(UTC)
TICK = timedelta(microseconds=1)


async def both(book: Book, code: str, at: datetime) -> tuple[int, int]:
    recorded = await balance_at(book.database, code, at)
    effective = await balance_at(book.database, code, at, "effective")
    return recorded.balance, effective.balance


async def test_every_moment_of_a_random_history(book: Book) -> None:
    """Against a plain sum over all entries, at each entry's times, and just before and after."""
    await book.open("a", "b", floor=None)
    draw = random.Random(7)
    for number in range(60):
        times = [
            None,
            None,
            NOW - timedelta(days=draw.randint(1, 5)),
            NOW + timedelta(days=draw.randint(1, 5)),
        ]
        await book.call(
            *(
                pay(f"{number}/{item}", "a", "b", draw.randint(1, 50), effective_at=draw.choice(times))
                for item in range(draw.randint(1, 3))
            )
        )
    account = await book.account("b")
    entries = await statement_page(book.database, account.id, after=0, before=1_000, limit=1_000)
    assert len(entries) == account.version > 60
    moments = {time for entry in entries for time in (entry.recorded_at, entry.effective_at)}
    for at in sorted({moment + step for moment in moments for step in (-TICK, timedelta(0), TICK)}):
        recorded = [entry for entry in entries if entry.recorded_at <= at]
        effective = [entry for entry in entries if entry.effective_at <= at]
        found = await balance_at(book.database, "b", at)
        assert (found.balance, found.version) == (sum(entry.amount for entry in recorded), len(recorded))
        assert (await both(book, "b", at))[1] == sum(entry.amount for entry in effective), at
        assert await version_before(book.database, account.id, at + TICK) == len(recorded)


async def test_before_the_first_and_after_the_last(book: Book) -> None:
    await book.open("a", "b", floor=None)
    assert await both(book, "a", NOW) == (0, 0)
    await book.one(pay("1", "a", "b", 5))
    assert await both(book, "a", NOW - timedelta(days=9_999)) == (0, 0)
    assert await both(book, "a", NOW + timedelta(days=9_999)) == (-5, -5)


async def test_both_times_of_one_entry(book: Book) -> None:
    await book.open("a", "b", floor=None)
    past, future = NOW - timedelta(days=30), NOW + timedelta(days=30)
    await book.call(
        pay("past", "a", "b", 5, effective_at=past), pay("future", "a", "b", 70, effective_at=future)
    )
    at = datetime.now(UTC)
    assert await both(book, "b", past - TICK) == (0, 0)
    assert await both(book, "b", past) == (0, 5)
    assert await both(book, "b", at) == (75, 5)
    assert await both(book, "b", future) == (75, 75)


async def test_capture_and_reversal_take_effect_when_they_say(book: Book) -> None:
    await book.open("a", "b", floor=None)
    past = NOW - timedelta(days=30)
    await book.one(pay("t", "a", "b", 10, effective_at=past))
    item = await book.reversal("r", "t", 4)
    await book.one(item)
    assert await both(book, "b", datetime.now(UTC)) == (6, 6)
    assert await both(book, "b", past) == (0, 10)
    assert await book.faults() == []


async def test_sums_beyond_a_bigint_on_the_way(book: Book) -> None:
    await book.open("a", "b", floor=None)
    past = NOW - timedelta(days=30)
    for number in range(4):
        await book.call(
            pay(f"out {number}", "a", "b", MAX_AMOUNT_MINOR, effective_at=past),
            pay(f"back {number}", "b", "a", MAX_AMOUNT_MINOR),
        )
    assert await both(book, "b", past) == (0, 4 * MAX_AMOUNT_MINOR)
    assert await both(book, "b", datetime.now(UTC)) == (0, 0)


async def test_times_never_go_back_within_an_account(book: Book) -> None:
    """An account whose last entry came from a machine with a fast clock."""
    await book.open("a", "b", "c", floor=None)
    await book.one(pay("1", "a", "b", 1))
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    await book.owner.execute("UPDATE accounts SET recorded_at = $1 WHERE code = 'a'", ahead)
    outcomes = [await book.one(pay("2", "a", "b", 1)), await book.one(pay("3", "b", "c", 1))]
    assert [outcome.recorded_at for outcome in outcomes] == [ahead, ahead]
    assert (await balance_at(book.database, "b", ahead - TICK)).version == 1
    assert (await balance_at(book.database, "b", ahead)).version == 3


async def test_the_search_reads_few_rows(book: Book) -> None:
    await book.open("a", "b", floor=None)
    for batch in range(4):
        await book.call(*(pay(f"{batch}/{number}", "a", "b", 1) for number in range(1_000)))
    account = await book.account("b")
    text = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'entries'"
    async with book.owner.transaction():
        await book.owner.fetchval("SELECT ledger_version_at($1, $2)", account.id, datetime.now(UTC))
        assert await book.owner.fetchval(text) <= 14
