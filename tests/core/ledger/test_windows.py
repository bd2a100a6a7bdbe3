"""Limits on what leaves an account in an hour and on a UTC day."""

from datetime import UTC, datetime, timedelta

import pytest

from core.ledger.accounts import change_account
from core.ledger.items import Operation
from tests.core.ledger.book import Book, codes, pay, posting

NO_WINDOWS = dict.fromkeys(("hour_amount_max", "hour_count_max", "day_amount_max", "day_count_max"))


@pytest.fixture
async def shop(book: Book) -> Book:
    """`a` has 1,000 and no limits yet."""
    await book.open("a", "b")
    await book.fund(1_000, "a")
    return book


async def limit(book: Book, **limits: int | None) -> None:
    await change_account(book.database, "a", limits=limits)


async def pass_time(book: Book, passed: timedelta) -> None:
    """Let what was counted be so much older."""
    for row in await book.owner.fetch("DELETE FROM window_usage RETURNING *"):
        unit = "day" if row["span"] == b"d" else "minute"
        await book.owner.execute(
            "INSERT INTO window_usage VALUES ($1, $2, date_trunc($3, $4::timestamptz, 'UTC'), $5, $6)",
            row["account_id"], row["span"], unit, row["bucket"] - passed, row["amount"], row["uses"],
        )  # fmt: skip


async def test_each_limit(shop: Book) -> None:
    for number, (name, most, allowed, code) in enumerate(
        [
            ("hour_amount_max", 50, 2, "hourly_amount_exceeded"),
            ("hour_count_max", 3, 3, "hourly_count_exceeded"),
            ("day_amount_max", 30, 1, "daily_amount_exceeded"),
            ("day_count_max", 2, 2, "daily_count_exceeded"),
        ]
    ):
        await shop.owner.execute("TRUNCATE window_usage")
        await limit(shop, **{**NO_WINDOWS, name: most})
        outcomes = await shop.call(*(pay(f"{number}/{turn}", "a", "b", 20) for turn in range(4)))
        assert codes(outcomes) == ["posted"] * allowed + [code] * (4 - allowed)


async def test_the_figure_is_what_is_left(shop: Book) -> None:
    await limit(shop, day_amount_max=50)
    outcomes = await shop.call(pay("1", "a", "b", 30), pay("2", "a", "b", 21), pay("3", "a", "b", 20))
    assert [outcome.figure for outcome in outcomes] == [None, 20, None]
    assert outcomes[1].refusal().detail == "Account 'a' may send 20 more in this window."


async def test_the_hour_is_rolling(shop: Book) -> None:
    await limit(shop, hour_amount_max=50)
    await shop.call(pay("1", "a", "b", 40))
    await pass_time(shop, timedelta(minutes=57))
    assert codes(await shop.call(pay("2", "a", "b", 20), pay("3", "a", "b", 10))) == [
        "hourly_amount_exceeded",
        "posted",
    ]
    await pass_time(shop, timedelta(minutes=4))
    # Now the 40 are out of the hour, and the 10 are not.
    assert codes(await shop.call(pay("4", "a", "b", 41), pay("5", "a", "b", 40))) == [
        "hourly_amount_exceeded",
        "posted",
    ]


async def test_the_day_begins_at_midnight_utc(shop: Book) -> None:
    await limit(shop, day_amount_max=50)
    await shop.call(pay("1", "a", "b", 40))
    [row] = await shop.owner.fetch("SELECT bucket, amount, uses FROM window_usage WHERE span = 'd'")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert (row["bucket"], row["amount"], row["uses"]) == (today, 40, 1)
    await pass_time(shop, timedelta(days=1))
    assert codes(await shop.call(pay("2", "a", "b", 50), pay("3", "a", "b", 1))) == [
        "posted",
        "daily_amount_exceeded",
    ]


async def test_what_is_out_of_every_window_is_not_kept(shop: Book) -> None:
    await limit(shop, hour_count_max=50, day_count_max=50)
    for day in range(3):
        await shop.call(pay(f"{day}", "a", "b", 1))
        assert await shop.owner.fetchval("SELECT count(*) FROM window_usage") == 2
        await pass_time(shop, timedelta(days=1))


async def test_a_transfer_counts_once_with_its_sum(shop: Book) -> None:
    await limit(shop, hour_amount_max=50, hour_count_max=2)
    outcomes = await shop.call(
        posting("1", ("a", -60), ("b", 40), ("a", 20)),
        posting("2", ("a", 5), ("b", -5)),  # it receives: nothing leaves
        posting("3", ("a", -5), ("a", 5)),
        pay("4", "a", "b", 10),
        pay("5", "a", "b", 1),
    )
    assert codes(outcomes) == ["posted"] * 4 + ["hourly_amount_exceeded"]
    await limit(shop, hour_amount_max=None)
    assert codes(await shop.call(pay("6", "a", "b", 1))) == ["hourly_count_exceeded"]


async def test_a_hold_counts_when_it_is_made(shop: Book) -> None:
    await limit(shop, day_amount_max=100, day_count_max=3)
    hold = await shop.hold("h", ("a", -80), ("b", 80))
    assert (await shop.one(pay("1", "a", "b", 21))).kind.code == "daily_amount_exceeded"
    assert (await shop.capture("c", hold, 50)).posted
    assert (await shop.void("v", hold)).posted
    # What was not captured stays counted: otherwise holds would be a way around the limit.
    assert (await shop.one(pay("2", "a", "b", 21))).kind.code == "daily_amount_exceeded"
    assert (await shop.one(pay("3", "a", "b", 20))).posted
    [new] = await shop.call(posting("h2", ("a", -1), ("b", 1), operation=Operation.HOLD))
    assert new.kind.code == "daily_amount_exceeded"


async def test_reversals_are_not_counted(shop: Book) -> None:
    await limit(shop, day_amount_max=10, transfer_max=10)
    assert (await shop.one(pay("1", "a", "b", 10))).posted
    assert (await shop.reverse("r", "fund:a", 500)).posted
    assert (await shop.one(pay("2", "a", "b", 1))).kind.code == "daily_amount_exceeded"


async def test_what_is_refused_or_undone_is_not_counted(shop: Book) -> None:
    await limit(shop, day_amount_max=100)
    outcomes = await shop.call(
        pay("1", "a", "nobody", 90), pay("2", "a", "b", 90, group=1), posting("3", ("a", -1), group=1),
        pay("4", "a", "b", 100), pay("4", "a", "b", 100),
    )  # fmt: skip
    assert codes(outcomes) == [
        "account_not_found",
        "group_failed",
        "legs_unbalanced",
        "posted",
        "again posted",
    ]
    assert codes(await shop.call(pay("5", "a", "b", 1), dry_run=True)) == ["daily_amount_exceeded"]


async def test_it_counts_while_there_is_a_limit(shop: Book) -> None:
    await shop.one(pay("before", "a", "b", 500))
    await limit(shop, day_amount_max=10)
    assert (await shop.one(pay("1", "a", "b", 10))).posted
    await limit(shop, day_amount_max=None)
    assert (await shop.one(pay("2", "a", "b", 100))).posted
    await limit(shop, day_amount_max=12)
    assert codes(await shop.call(pay("3", "a", "b", 3), pay("4", "a", "b", 2))) == [
        "daily_amount_exceeded",
        "posted",
    ]


async def test_zero_lets_nothing_leave(shop: Book) -> None:
    await limit(shop, hour_count_max=0)
    assert codes(await shop.call(pay("1", "a", "b", 1), pay("2", "cash", "a", 1))) == [
        "hourly_count_exceeded",
        "posted",
    ]
