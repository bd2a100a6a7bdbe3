"""A list of a period holds what the statements of the same period show, however times and numbers disagree."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from core.ledger import accounts, transfers
from core.ledger.transfers import TransferFilter
from tests.core.ledger.book import Book, pay

ACCOUNTS = ("a", "b", "c", "d")
KINDS = ("sale", "payout")


async def set_ahead(book: Book, code: str, by: timedelta) -> None:
    """Let an account's last entry be later than the clock, as after a failover to a server whose clock was behind."""
    await book.owner.execute(
        "UPDATE accounts SET recorded_at = greatest(recorded_at, clock_timestamp() + $2) WHERE code = $1",
        code,
        by,
    )


async def listed(book: Book, wanted: TransferFilter, limit: int = 3) -> list[UUID]:
    """Page a list to its end."""
    found: list[UUID] = []
    before = transfers.NEWEST
    while True:
        page, more = await transfers.list_transfers(book.database, wanted, before=before, limit=limit)
        found += [UUID(transfer.id) for _, transfer in page]
        if not more:
            return found
        before = page[-1][0]


async def in_statements(book: Book, since: datetime | None, until: datetime | None) -> set[UUID]:
    """Return the transfers that the statements of all accounts show for a period."""
    found: set[UUID] = set()
    for code in ACCOUNTS:
        account = await book.account(code)
        after, before = await accounts.statement_span(book.database, account, since, until)
        async for page in accounts.statement_pages(book.database, account.id, after=after, before=before):
            found |= {UUID(line.transfer) for line in page}
    return found


async def filters_agree(book: Book, since: datetime | None, until: datetime | None) -> None:
    shown = await in_statements(book, since, until)
    period: dict[str, Any] = {"recorded_from": since, "recorded_before": until}
    everything = await listed(book, TransferFilter(**period))
    assert set(everything) == shown
    assert len(everything) == len(shown)
    for code in ACCOUNTS:
        account = await book.account(code)
        after, before = await accounts.statement_span(book.database, account, since, until)
        lines = await accounts.statement_page(
            book.database, account.id, after=after, before=before, limit=1_000
        )
        of_account = await listed(book, TransferFilter(account=account, **period))
        assert of_account == list(dict.fromkeys(UUID(line.transfer) for line in reversed(lines)))
    by_kind = [await listed(book, TransferFilter(kind=kind, **period)) for kind in KINDS]
    assert sorted(id_ for found in by_kind for id_ in found) == sorted(everything)
    assert await listed(book, TransferFilter(reference="all", **period)) == everything
    assert await listed(book, TransferFilter(metadata=[{"in": "all"}], **period)) == everything


@pytest.mark.parametrize("ahead", [timedelta(seconds=59), timedelta(minutes=61), timedelta(days=400)])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_transfer_of_an_account_ahead_of_the_clock_is_listed(
    book: Book, ahead: timedelta, *, sealed: bool
) -> None:
    await book.open(*ACCOUNTS, floor=None)
    await set_ahead(book, "a", ahead)
    for number, source in enumerate("acacc"):
        await book.one(
            pay(
                f"{number}",
                source,
                "b" if source == "a" else "d",
                1,
                reference="all",
                kind="sale",
                metadata={"in": "all"},
            )
        )
    if sealed:
        await book.seal()
    for back in (timedelta(0), ahead / 2):
        await filters_agree(book, datetime.now(UTC) + ahead - back - timedelta(seconds=20), None)
    await filters_agree(book, None, datetime.now(UTC) + timedelta(seconds=20))


@pytest.mark.parametrize("seed", range(3))
async def test_periods_agree_with_statements_whatever_the_times(book: Book, seed: int) -> None:
    chance = random.Random(seed)
    await book.open(*ACCOUNTS, floor=None)
    for number in range(40):
        if chance.random() < 0.2:
            by = timedelta(seconds=chance.choice([1, 50, 70, 4_000, 900_000]))
            await set_ahead(book, chance.choice(ACCOUNTS), by)
        source, target = chance.sample(ACCOUNTS, 2)
        await book.one(
            pay(
                f"{number}",
                source,
                target,
                1,
                reference="all",
                kind=chance.choice(KINDS),
                metadata={"in": "all"},
            )
        )
        if chance.random() < 0.15:
            await book.seal()
    for _ in range(2):  # with batches that wait for the sequencer, and without
        times = [row["recorded_at"] for row in await book.owner.fetch("SELECT recorded_at FROM batches")]
        for first, last in pairwise(chance.sample([*times, None, None], 8)):
            in_order = first is None or last is None or first < last
            await filters_agree(book, *((first, last) if in_order else (last, first)))
        await book.seal()


async def test_a_batch_that_commits_late_is_listed(book: Book) -> None:
    """The number of a batch may be in flight while the feed goes on; its time counts when it is there."""
    await book.open(*ACCOUNTS, floor=None)
    await set_ahead(book, "a", timedelta(hours=3))
    late = await book.one(pay("late", "a", "b", 1, reference="all", kind="sale", metadata={"in": "all"}))
    row = await book.owner.fetchrow("DELETE FROM batches WHERE seq = $1 >> 22 RETURNING *", late.no)
    for number in range(5):
        await book.one(pay(f"{number}", "c", "d", 1, reference="all", kind="sale", metadata={"in": "all"}))
    await book.seal()
    assert row is not None
    await book.owner.execute("INSERT INTO feed_gaps (batch) VALUES ($1) ON CONFLICT DO NOTHING", row["seq"])
    await book.owner.execute(
        "INSERT INTO batches (seq, recorded_at, events) VALUES ($1, $2, $3)",
        row["seq"],
        row["recorded_at"],
        row["events"],
    )
    for _ in range(2):
        await filters_agree(book, row["recorded_at"] - timedelta(hours=1), None)
        await filters_agree(book, None, row["recorded_at"] - timedelta(hours=1))
        await book.seal()


async def test_a_period_reads_its_own_batches_only(book: Book) -> None:
    """The span is narrow when times and numbers agree, so that a list of a day does not read a year."""
    await book.open(*ACCOUNTS, floor=None)
    for number in range(20):
        await book.one(pay(f"{number}", "a", "b", 1))
    await book.seal()
    rows = await book.owner.fetch("SELECT seq, recorded_at FROM batches ORDER BY seq")
    tenth, twelfth = rows[10], rows[12]
    span = await book.database.fetchrow(
        transfers.SQL.batch_span, tenth["recorded_at"], twelfth["recorded_at"]
    )
    assert span is not None
    assert (span["first_batch"], span["last_batch"]) == (tenth["seq"], twelfth["seq"] - 1)
