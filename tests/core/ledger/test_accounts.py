"""Accounts: opened once, changed under their lock."""

import asyncio
import itertools
import json

import pytest

from core.errors import Refusal
from core.ledger.accounts import (
    AccountState,
    Limits,
    Opening,
    change_account,
    list_accounts,
    open_account,
    open_accounts,
)
from tests.core.ledger.book import PRINCIPAL, Book, pay


async def events(book: Book, code: str) -> list[tuple[str, dict[str, object]]]:
    rows = await book.owner.fetch(
        "SELECT e.kind, e.data FROM account_events AS e INNER JOIN accounts AS a ON a.id = e.account_id "
        "WHERE a.code = $1 ORDER BY e.no",
        code,
    )
    return [(row["kind"], json.loads(row["data"])) for row in rows]


async def test_opening_is_idempotent_by_code(book: Book) -> None:
    opening = Opening("a", "USD", Limits(floor=-5, day_count_max=3), {"b": "1", "a": "2"})
    account, opened = await open_account(book.database, opening, PRINCIPAL)
    assert (opened, account.limits, account.metadata, account.version) == (
        True,
        opening.limits,
        opening.metadata,
        0,
    )
    again, opened = await open_account(
        book.database, opening._replace(metadata={"a": "2", "b": "1"}), PRINCIPAL
    )
    assert (again, opened) == (account, False)
    with pytest.raises(Refusal) as caught:
        await open_account(book.database, Opening("a", "EUR", Limits(floor=-5)), PRINCIPAL)
    assert (caught.value.code, caught.value.extra["differs"]) == (
        "account_exists",
        ["currency", "limits", "metadata"],
    )
    assert len(await events(book, "a")) == 1


async def test_one_code_twice_in_a_call(book: Book) -> None:
    openings = [
        Opening("a", "USD", Limits(day_count_max=1)), Opening("b", "USD"), Opening("a", "EUR", Limits(day_count_max=2)),
    ]  # fmt: skip
    assert await open_accounts(book.database, openings, PRINCIPAL) == {"a": True, "b": True}
    account = await book.account("a")
    assert (account.currency, account.limits.day_count_max) == ("USD", 1)
    assert await open_accounts(book.database, openings, PRINCIPAL) == {"a": False, "b": False}
    await book.seal()
    assert await book.faults() == []


async def test_opened_by_many_at_once(book: Book) -> None:
    codes = [f"{number}" for number in range(20)]
    opened = await asyncio.gather(
        *(
            open_accounts(book.database, [Opening(code, "USD") for code in order], PRINCIPAL)
            for order in (codes, codes[::-1], codes[5:], codes[:15])
        )
    )
    assert all(sum(each.get(code, False) for each in opened) == 1 for code in codes)
    await book.seal()
    assert await book.faults() == []


async def test_change_leaves_what_is_not_given(book: Book) -> None:
    await book.open("a", floor=-10, transfer_max=5, hour_count_max=7)
    await change_account(
        book.database, "a", limits={"ceiling": 50, "hour_count_max": None, "day_amount_max": 9}
    )
    await change_account(book.database, "a", state="frozen")
    account = await change_account(book.database, "a", metadata={"x": "y"})
    limits = Limits(floor=-10, ceiling=50, transfer_max=5, day_amount_max=9)
    assert (account.state, account.limits, account.metadata) == ("frozen", limits, {"x": "y"})
    kinds, data = zip(*await events(book, "a"), strict=True)
    assert kinds == ("account.created", *["account.updated"] * 3)
    assert [(each["state"], each["metadata"]) for each in data[1:]] == [
        ("open", {}), ("frozen", {}), ("frozen", {"x": "y"}),
    ]  # fmt: skip
    assert data[-1]["limits"] == {name: getattr(limits, name) for name in Limits.__struct_fields__}
    await change_account(book.database, "a", limits={"day_amount_max": None})
    assert await book.owner.fetchval("SELECT count(*) FROM account_windows") == 0


async def test_changes_at_once_do_not_undo_each_other(book: Book) -> None:
    """A freeze that another change has overwritten would let money leave."""
    await book.open("a")
    for turn in range(10):
        state: AccountState = "frozen" if turn % 2 else "open"
        await asyncio.gather(
            change_account(book.database, "a", state=state),
            change_account(book.database, "a", metadata={"turn": f"{turn}"}),
            change_account(book.database, "a", limits={"ceiling": turn}),
            change_account(book.database, "a", limits={"day_count_max": turn}),
        )
        account = await book.account("a")
        assert (account.state, account.metadata, account.limits.ceiling, account.limits.day_count_max) == (
            state, {"turn": f"{turn}"}, turn, turn,
        )  # fmt: skip


async def test_contradictions_are_refused(book: Book) -> None:
    with pytest.raises(Refusal) as caught:
        await open_account(book.database, Opening("a", "USD", Limits(floor=5, ceiling=4)), PRINCIPAL)
    assert caught.value.code == "invalid_request"
    await book.open("a", ceiling=10)
    with pytest.raises(Refusal) as caught:
        await change_account(book.database, "a", limits={"floor": 11})
    assert caught.value.code == "invalid_request"
    assert (await book.account("a")).limits.floor == 0
    with pytest.raises(Refusal) as caught:
        await change_account(book.database, "nobody", state="frozen")
    assert caught.value.code == "account_not_found"


async def test_closing(book: Book) -> None:
    await book.open("a", "b")
    await book.fund(10, "a")
    hold = await book.hold("h", ("a", -10), ("b", 10))
    for step in (None, book.void("v", hold)):
        if step is not None:
            await step
        with pytest.raises(Refusal) as caught:
            await change_account(book.database, "a", state="closed")
        assert caught.value.code == "account_not_empty"
    await book.one(pay("out", "a", "b", 10))
    assert (await change_account(book.database, "a", state="closed")).state == "closed"
    for change in ("open", "frozen", "closed"):
        with pytest.raises(Refusal) as caught:
            await change_account(book.database, "a", state=change)
        assert caught.value.code == "account_closed"
    assert (await book.one(pay("in", "b", "a", 1))).kind.code == "account_closed"


async def test_freeze_against_transfers(book: Book) -> None:
    """What was posted before the freeze has lower numbers than it, what came after it was refused."""
    await book.open("a", "b")
    await book.fund(1_000, "a")

    async def spend() -> list[str]:
        return [(await book.one(pay(f"{number}", "a", "b", 1))).kind.code for number in range(60)]

    async def freeze() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await change_account(book.database, "a", state="frozen")

    found, _ = await asyncio.gather(spend(), freeze())
    assert [code for code, _ in itertools.groupby(found)] in (
        ["posted", "account_frozen"], ["account_frozen"], ["posted"],
    )  # fmt: skip
    frozen = await book.owner.fetchval("SELECT max(no) FROM account_events")
    last = await book.owner.fetchval("SELECT max(no) FROM transfers")
    assert "account_frozen" not in found or last < frozen
    assert (await book.account("b")).balance == found.count("posted")


async def test_lists(book: Book) -> None:
    await book.open("shop:1", "shop:2", "shop_3", "person")
    await book.open("shop:4", currency="EUR")
    await change_account(book.database, "shop:2", state="frozen")
    everything = [account.code for account in await list_accounts(book.database)]
    assert everything == sorted(everything)
    assert len(everything) == 5
    first = await list_accounts(book.database, limit=2)
    rest = await list_accounts(book.database, after=first[-1].code)
    assert [account.code for account in (*first, *rest)] == everything
    assert {account.code for account in await list_accounts(book.database, prefix="shop:")} == {
        "shop:1", "shop:2", "shop:4",
    }  # fmt: skip
    assert [account.code for account in await list_accounts(book.database, currency="EUR")] == ["shop:4"]
    assert [account.code for account in await list_accounts(book.database, state="frozen")] == ["shop:2"]
