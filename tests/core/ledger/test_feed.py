"""The feed: dense, in an order that respects commits, whoever posts, rolls back, waits or seals meanwhile."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import pytest

from core.database import Database, open_database
from core.ledger import holds
from core.ledger.accounts import change_account
from core.ledger.feed import FeedEvent, feed_head, read_feed
from core.ledger.poster import Poster
from core.ledger.posting import post
from core.ledger.sealing import feed_lag_seconds, seal_once
from core.settings import Settings
from tests.core.ledger.book import Book, pay, posting

LONG_AGO = datetime(2020, 2, 29, 12, tzinfo=UTC)


class RolledBackError(Exception):
    pass


async def everything(book: Book, page: int = 7) -> list[FeedEvent]:
    """The whole feed, page by page."""
    events: list[FeedEvent] = []
    while found := await read_feed(book.database, after=len(events), limit=page):
        events += found
    return events


async def rolled_back(book: Book, key: str) -> None:
    """Post, and let the transaction fail after it has drawn its number."""
    with suppress(RolledBackError):
        async with book.database.transaction() as connection:
            [outcome] = await post(connection, [pay(key, "a", "b", 1)])
            assert outcome.posted
            raise RolledBackError


@pytest.fixture
async def shop(book: Book) -> Book:
    await book.open("a", "b", "c", floor=None)
    await book.seal()
    return book


async def test_each_operation_is_one_event(shop: Book) -> None:
    await change_account(shop.database, "c", metadata={"name": "Carla"})
    await shop.one(pay("t", "a", "b", 10, kind="payment", reference="r", metadata={"x": "y"}))
    await shop.reverse("r", "t", 4)
    hold = await shop.hold("h", ("a", -100), ("b", 97), ("c", 3))
    await shop.capture("part", hold, 50)
    await shop.void("v", hold)
    await shop.hold("late", ("a", -5), ("b", 5), expires_at=LONG_AGO)
    await holds.expire_due(shop.database)
    await shop.call(pay("no", "a", "b", 1, group=1), posting("never", ("a", 1), group=1))
    await shop.seal()
    events = await everything(shop)
    assert [event.position for event in events] == [*range(1, len(events) + 1)]
    assert [event.type for event in events] == [
        "account.created", "account.created", "account.created", "account.updated",
        "transfer.posted", "transfer.reversed", "hold.created", "hold.captured", "hold.voided", "hold.created",
        "hold.expired",
    ]  # fmt: skip
    created, transfer, captured = events[0].data, events[4].data, events[7].data
    assert (created["account"], created["currency"], created["limits"]["floor"]) == ("a", "USD", None)
    assert (transfer["kind"], transfer["reference"], transfer["metadata"]) == ("payment", "r", {"x": "y"})
    assert transfer["entries"][0] == {"account": "a", "amount": -10, "version": 1, "balance_after": -10}
    assert "reversed" not in transfer
    assert (captured["amount"], captured["captured"], captured["hold_amount"]) == (50, 50, 100)
    assert [entry["amount"] for entry in captured["transfer"]["entries"]] == [-50, 49, 1]
    assert await shop.faults() == []


async def test_pages_within_and_across_batches(shop: Book) -> None:
    for size in (1, 9, 2, 4, 30):
        await shop.call(*(pay(f"{size}/{number}", "a", "b", 1) for number in range(size)))
        await shop.seal()
    whole = await everything(shop, page=1_000)
    assert len(whole) == 3 + 46 == await feed_head(shop.database)
    for page in (1, 2, 7, 49):
        assert await everything(shop, page) == whole
    for after in range(50):
        assert await read_feed(shop.database, after=after, limit=5) == whole[after : after + 5]
    assert await read_feed(shop.database, after=10**15, limit=5) == []


async def test_what_is_not_sealed_is_not_there(shop: Book) -> None:
    await shop.one(pay("1", "a", "b", 1))
    assert await feed_head(shop.database) == 3
    assert await feed_lag_seconds(shop.database) > 0
    assert await seal_once(shop.database) == 1
    assert (await feed_head(shop.database), await feed_lag_seconds(shop.database)) == (4, 0)
    assert await seal_once(shop.database) == 0


async def test_rolled_back_numbers_leave_no_hole(shop: Book) -> None:
    for number in range(5):
        await rolled_back(shop, f"gone {number}")
        await shop.one(pay(f"{number}", "a", "b", 1))
        await shop.seal()
    await rolled_back(shop, "the last")
    await shop.seal()
    events = await everything(shop)
    assert [event.position for event in events] == [*range(1, 9)]
    # Their numbers are forgotten once no transaction can still own them.
    assert await shop.owner.fetchval("SELECT count(*) FROM feed_gaps") == 0
    assert await shop.faults() == []


async def test_open_transaction_holds_up_only_itself(shop: Book) -> None:
    async with shop.database.transaction() as connection:
        await post(connection, [pay("slow", "a", "b", 1)])
        for number in range(3):
            await shop.one(pay(f"{number}", "c", "c", 1))
            await shop.seal()
        keys = [event.data["entries"][0]["account"] for event in (await everything(shop))[3:]]
        assert keys == ["c", "c", "c"]
        assert await shop.owner.fetchval("SELECT count(*) FROM feed_gaps") == 1
        assert await shop.faults() == []
    await shop.seal()
    assert [event.data["entries"][0]["account"] for event in (await everything(shop))[3:]] == [
        "c",
        "c",
        "c",
        "a",
    ]
    assert await shop.owner.fetchval("SELECT count(*) FROM feed_gaps") == 0
    assert await shop.faults() == []


async def test_foreign_transaction_stalls_nothing(shop: Book, settings: Settings) -> None:
    """One that has written long ago and never ends: a cut-off by the oldest transaction would wait for it."""
    foreign = await asyncpg.connect(str(settings.database_url))
    try:
        transaction = foreign.transaction()
        await transaction.start()
        await foreign.execute("CREATE TABLE somebody_elses (x integer)")
        for number in range(4):
            await rolled_back(shop, f"gone {number}")
            await shop.one(pay(f"{number}", "a", "b", 1))
            await shop.seal()
        assert await feed_head(shop.database) == 7
        await transaction.rollback()
    finally:
        await foreign.close()
    await shop.seal()
    assert await shop.owner.fetchval("SELECT count(*) FROM feed_gaps") == 0
    assert await shop.faults() == []


async def test_two_sequencers_at_once(shop: Book) -> None:
    await asyncio.gather(*(shop.call(pay(f"{number}", "a", "b", 1)) for number in range(40)))
    sealed = await asyncio.gather(*(seal_once(shop.database) for _ in range(6)))
    assert sum(sealed) == 40
    assert len(await everything(shop)) == 43
    assert await shop.faults() == []


async def test_rounds_are_bounded(shop: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.ledger.sealing.ROUND_BATCHES", 3)
    for number in range(8):
        await shop.one(pay(f"{number}", "a", "b", 1))
    assert [await seal_once(shop.database) for _ in range(4)] == [3, 3, 2, 0]
    assert await shop.faults() == []


async def trade(shop: Book, poster: Poster, trader: int) -> None:
    codes = ("a", "b", "c")
    for number in range(40):
        source, destination = codes[(trader + number) % 3], codes[(trader + number + 1) % 3]
        await poster.submit(pay(f"{trader}/{number}", source, destination, 1))
        if number % 8 == trader:
            await rolled_back(shop, f"gone {trader}/{number}")


async def hold_up(shop: Book) -> None:
    for number in range(5):
        async with shop.database.transaction() as connection:
            await post(connection, [pay(f"slow {number}", "c", "c", 1)])
            await connection.raw.fetch("SELECT pg_sleep(0.02)")


async def test_order_respects_commits_under_load(shop: Book, settings: Settings) -> None:
    """Three posters, roll-backs, slow transactions, two sequencers and a reader at once.

    The versions of every account rise along the feed, a reader is never given something below what it has read, and
    in the end the feed holds every event once.
    """
    databases: list[Database] = [await open_database(settings, size=2) for _ in range(3)]
    posters = [Poster(database, max_waiting=1_000) for database in databases]
    done = asyncio.Event()
    read: list[FeedEvent] = []

    async def seal(database: Database) -> None:
        while not done.is_set():
            await seal_once(database)

    async def follow() -> None:
        while not done.is_set() or len(read) < await feed_head(shop.database):
            read.extend(await read_feed(shop.database, after=len(read), limit=11))

    async def load() -> None:
        try:
            await asyncio.gather(
                *(trade(shop, posters[trader % 3], trader) for trader in range(6)), hold_up(shop)
            )
        finally:
            done.set()

    await asyncio.gather(load(), seal(databases[0]), seal(databases[1]), follow())
    await shop.seal()
    read += await read_feed(shop.database, after=len(read), limit=1_000)
    for database in databases:
        await database.close()

    assert [event.position for event in read] == [*range(1, len(read) + 1)]
    assert read == await everything(shop, page=1_000)
    ids = [event.data["id"] for event in read[3:]]
    assert len(ids) == len(set(ids)) == 6 * 40 + 5
    seen = defaultdict(list)
    for entry in [entry for event in read[3:] for entry in event.data["entries"]]:
        seen[entry["account"]].append(entry["version"])
    assert all(versions == [*range(1, len(versions) + 1)] for versions in seen.values())
    assert await shop.faults() == []
