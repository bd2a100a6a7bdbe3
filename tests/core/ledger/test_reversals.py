"""Reversals: whole and in parts, never more than the transfer in all."""

import asyncio

import pytest

from core.errors import Refusal
from core.ledger.items import operation_id
from core.ledger.transfers import describe, get_transfer
from core.money import MAX_AMOUNT_MINOR
from tests.core.ledger.book import PRINCIPAL, Book, codes, pay, posting


@pytest.fixture
async def shop(book: Book) -> Book:
    await book.open("a", "b", "fees")
    await book.fund(1_000, "a")
    return book


async def reversed_of(book: Book, key: str) -> int:
    return (await get_transfer(book.database, operation_id(PRINCIPAL, key))).reversed


async def test_whole(shop: Book) -> None:
    await shop.one(posting("t", ("a", -100), ("b", 100), ("b", -3), ("fees", 3)))
    item = await shop.reversal("r", "t")
    outcome = await shop.one(item)
    assert [(line.account, line.amount, line.balance_after) for line in outcome.entries] == [
        ("a", 100, 1_000), ("b", -100, -3), ("b", 3, 0), ("fees", -3, 0),
    ]  # fmt: skip
    transfer = describe(item, outcome)
    assert (transfer.kind, transfer.captures) == ("reversal", None)
    assert transfer.reverses == str(operation_id(PRINCIPAL, "t"))
    assert (await shop.one(item)).replayed
    assert await reversed_of(shop, "t") == 100
    assert (await shop.reverse("again", "t")).kind.code == "already_reversed"
    assert (await shop.reverse("again, in part", "t", 1)).kind.code == "already_reversed"
    assert await shop.faults() == []


async def test_parts_add_up_to_the_whole(shop: Book) -> None:
    await shop.one(posting("t", ("a", -100), ("b", 67), ("fees", 33)))
    for number, part in enumerate((1, 33, 49)):
        assert (await shop.reverse(f"r{number}", "t", part)).posted
    refused = await shop.reverse("too much", "t", 18)
    assert (refused.kind.code, refused.figure) == ("exceeds_reversible", 17)
    last = await shop.reverse("rest", "t")
    assert last.amount == 17
    assert await shop.balances("a", "b", "fees") == [1_000, 0, 0]
    assert await reversed_of(shop, "t") == 100
    assert await shop.faults() == []


async def test_parts_of_huge_amounts(book: Book) -> None:
    await book.open("a", "b", "c", floor=None)
    top = MAX_AMOUNT_MINOR
    await book.one(posting("t", ("a", -top), ("b", top - 1), ("c", 1)))
    for number in range(3):
        assert (await book.reverse(f"r{number}", "t", top // 3)).posted
    assert (await book.reverse("rest", "t")).kind.code in {"posted", "already_reversed"}
    assert await book.balances("a", "b", "c") == [0, 0, 0]
    assert await book.faults() == []


async def test_several_givers(shop: Book) -> None:
    await shop.fund(50, "b")
    await shop.one(posting("t", ("b", -50), ("a", -50), ("fees", 100)))
    outcome = await shop.reverse("r", "t", 14)
    assert [(line.account, line.amount) for line in outcome.entries] == [("b", 7), ("a", 7), ("fees", -14)]
    await shop.one(posting("from the receiver's side", ("fees", 10), ("a", -4), ("b", -6)))
    outcome = await shop.reverse("r2", "from the receiver's side", 5)
    assert [(line.account, line.amount) for line in outcome.entries] == [("fees", -5), ("a", 2), ("b", 3)]


async def test_the_money_has_to_be_there(shop: Book) -> None:
    await shop.call(pay("t", "a", "b", 100), pay("spent", "b", "fees", 60))
    refused = await shop.reverse("r", "t")
    assert (refused.kind.code, refused.account, refused.figure) == ("insufficient_funds", "b", 40)
    assert (await shop.reverse("part", "t", 40)).posted
    await shop.call(pay("earned", "cash", "b", 60))
    assert (await shop.reverse("r", "t")).replayed  # a refusal stays what it was
    assert (await shop.reverse("rest", "t")).posted


async def test_what_cannot_be_reversed(shop: Book) -> None:
    await shop.open("e", "f", currency="EUR", floor=None)
    await shop.call(pay("t", "a", "b", 10), posting("exchange", ("a", -5), ("b", 5), ("e", -4), ("f", 4)))
    await shop.reverse("r", "t")
    for key, amount, code in (
        ("r", None, "not_reversible"), ("exchange", 5, "not_reversible"), ("never", None, "transfer_not_found"),
    ):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            await shop.reversal("x", key, amount)
        assert caught.value.code == code
    assert (await shop.reverse("whole exchange", "exchange")).posted
    hold = await shop.hold("h", ("a", -5), ("b", 5))
    with pytest.raises(Refusal) as caught:
        await shop.reversal("x", "h")
    assert caught.value.code == "transfer_not_found"
    await shop.void("v", hold)
    assert await shop.balances("e", "f") == [0, 0]


async def test_many_at_once_never_exceed_the_transfer(shop: Book) -> None:
    await shop.one(pay("t", "a", "b", 100))
    items = [await shop.reversal(f"r{number}", "t", 30) for number in range(8)]
    outcomes = await asyncio.gather(*(shop.call(item) for item in items))
    assert sorted(codes([outcome for [outcome] in outcomes])) == ["exceeds_reversible"] * 5 + ["posted"] * 3
    assert await reversed_of(shop, "t") == 90
    assert await shop.balances("a", "b") == [990, 10]
    assert await shop.faults() == []


async def test_several_in_one_batch(shop: Book) -> None:
    await shop.call(pay("t", "a", "b", 100))
    items = [await shop.reversal(f"r{number}", "t", part) for number, part in enumerate((60, 50, None, 1))]
    items[0].group = items[1].group = 1
    assert codes(await shop.call(*items)) == [
        "group_failed",
        "exceeds_reversible",
        "posted",
        "already_reversed",
    ]
    assert await shop.balances("a", "b") == [1_000, 0]
