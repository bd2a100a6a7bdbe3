"""A closed date and a posting meet: whichever comes second sees the other."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from core.closing import move_closed_date
from core.ledger.items import Operation
from core.ledger.posting import post
from tests.chaos.staging import install
from tests.core.ledger.book import Book, codes, pay, posting

LAST_YEAR, THIS_YEAR = datetime(2025, 6, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
LOCK = "        LOCK TABLE closed_dates IN SHARE MODE;\n"
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'closed_dates'::regclass AND NOT granted"


@pytest.mark.parametrize("locks", [True, False], ids=["", "without the lock"])
async def test_a_date_and_a_posting_wait_for_each_other(
    book: Book, eventually: Callable[..., Awaitable[Any]], *, locks: bool
) -> None:
    if not locks:
        await install(book.owner, (LOCK, ""))
    await book.open("a", "b", floor=None)

    async def move() -> None:
        await move_closed_date(book.database, "USD", THIS_YEAR, actor="admin", reason="reported")

    # A date that is moved while a posting is under way waits for its commit.
    async with book.database.transaction() as connection:
        assert codes(await post(connection, [pay("1", "a", "b", 1, effective_at=LAST_YEAR)])) == ["posted"]
        moving = asyncio.create_task(move())
        if locks:
            await eventually(lambda: book.owner.fetchval(WAITING))
        else:
            await moving
        assert moving.done() is not locks
    await moving
    await book.owner.execute("DELETE FROM closed_dates")

    # A posting that comes while a date is moved waits for it.
    async with book.database.transaction() as connection:
        await connection.raw.execute("LOCK TABLE closed_dates IN SHARE ROW EXCLUSIVE MODE")
        await connection.raw.execute(
            "INSERT INTO closed_dates (currency, closed_before) VALUES ('USD', $1)", THIS_YEAR
        )
        arriving = asyncio.create_task(book.call(pay("2", "a", "b", 1, effective_at=LAST_YEAR)))
        if locks:
            await eventually(lambda: book.owner.fetchval(WAITING))
        else:
            await arriving
    assert codes(await arriving) == ["period_closed" if locks else "posted"]


async def test_a_ceiling_holds_against_holds_at_once(book: Book) -> None:
    await book.open("a", "b")
    await book.open("full", ceiling=100)
    await book.fund(1_000, "a", "b")
    items = [
        posting(f"h{number}", ("ab"[number % 2], -30), ("full", 30), operation=Operation.HOLD)
        for number in range(8)
    ]
    outcomes = [outcome for [outcome] in await asyncio.gather(*(book.call(item) for item in items))]
    assert sorted(codes(outcomes)) == ["ceiling_exceeded"] * 5 + ["posted"] * 3
    assert (await book.account("full")).incoming == 90
    assert await book.faults() == []
