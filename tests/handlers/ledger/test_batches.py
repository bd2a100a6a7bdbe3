"""Batches over HTTP: thousands of items in order, each with its own outcome, and groups that stand or fall together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.service import Service
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop, row_counts
from tests.invariants import faults

BATCH = "/v1/transfers/batch"


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    found = Shop(api, await api_key())
    await found.open("cash", floor=None)
    await found.open("a", "b", "c")
    return found


@pytest.fixture(autouse=True)
async def sound_books(database_url: str, shop: Shop) -> Any:
    """Whatever a test does, the books are sound after it."""
    yield
    assert await faults(database_url) == {}


def item(key: str, source: str, target: str, amount: int, **more: Any) -> dict[str, Any]:
    return {"key": key, "from": source, "to": target, "amount": amount, **more}


async def send(shop: Shop, *items: dict[str, Any], dry_run: bool = False) -> Answer:
    return await shop.call("POST", BATCH, {"transfers": items, "dry_run": dry_run})


async def outcomes(shop: Shop, *items: dict[str, Any], dry_run: bool = False) -> list[str]:
    answer = await send(shop, *items, dry_run=dry_run)
    assert answer.status == 200, answer
    body = answer.json
    assert [result["key"] for result in body["results"]] == [item["key"] for item in items]
    found = [result["outcome"] for result in body["results"]]
    assert (body["posted"], body["refused"]) == (found.count("posted"), len(found) - found.count("posted"))
    for result in body["results"]:
        if result["outcome"] == "posted":
            assert "error" not in result
        else:
            assert result["error"]["code"] == result["outcome"]
            assert result["error"]["message"].endswith(".")
            assert "transfer" not in result
    return found


async def test_each_item_has_its_own_outcome_in_order(shop: Shop) -> None:
    assert await outcomes(
        shop,
        item("1", "a", "b", 5),
        item("2", "cash", "a", 5),
        item("3", "a", "b", 5),
        item("4", "a", "nobody", 1),
        item("5", "b", "c", 6),
        item("6", "b", "c", 5),
    ) == ["insufficient_funds", "posted", "posted", "account_not_found", "insufficient_funds", "posted"]
    assert [await shop.balance(code) for code in "abc"] == [0, 0, 5]


async def test_answers_carry_transfers_and_errors(shop: Shop) -> None:
    answer = await send(shop, item("1", "cash", "a", 5, reference="r"), item("2", "a", "b", 6))
    good, bad = answer.json["results"]
    shown = (await shop.get(f"/v1/transfers/{good['transfer']['id']}")).json
    assert shown == good["transfer"] | {"reversed": 0}
    assert good["transfer"]["entries"][1] == {"account": "a", "amount": 5, "version": 1, "balance_after": 5}
    assert bad["error"] == {
        "code": "insufficient_funds", "account": "a",
        "message": "Account 'a' has 5 available, less than this takes.",
    }  # fmt: skip


async def test_five_thousand_items(shop: Shop) -> None:
    items = [item(f"k-{n}", "cash", "abc"[n % 3], 1 + n % 7) for n in range(5_000)]
    answer = await send(shop, *items)
    assert (answer.status, answer.json["posted"]) == (200, 5_000)
    assert sum([await shop.balance(code) for code in "abc"]) == sum(1 + n % 7 for n in range(5_000))
    again = await send(shop, *items)
    assert again.body == answer.body
    await shop.call("POST", "/v1/accounts", {"code": "d", "currency": "USD"})


async def test_singles_get_between_the_parts_of_a_large_batch(shop: Shop) -> None:
    items = [item(f"k-{n}", "cash", "a", 1) for n in range(2_000)]
    batch, *singles = await asyncio.gather(
        send(shop, *items), *(shop.transfer("cash", "a", 1, key=f"s-{n}") for n in range(50))
    )
    assert batch.json["posted"] == 2_000
    assert {single.status for single in singles} == {201}
    versions = [result["transfer"]["entries"][1]["version"] for result in batch.json["results"]]
    assert versions == sorted(versions)
    assert await shop.balance("a") == 2_050


async def test_group_stands_or_falls_together(shop: Shop) -> None:
    assert await outcomes(
        shop,
        item("1", "cash", "a", 10, group="g"),
        item("2", "a", "b", 4, group="g"),
        item("3", "a", "b", 1),
        item("4", "cash", "c", 5, group="h"),
        item("5", "c", "b", 6, group="h"),
        item("6", "cash", "b", 1, group="h"),
        item("7", "c", "b", 1),
    ) == [
        "posted",
        "posted",
        "posted",
        "group_failed",
        "insufficient_funds",
        "group_failed",
        "insufficient_funds",
    ]
    assert [await shop.balance(code) for code in "abc"] == [5, 5, 0]


async def test_failed_group_leaves_its_keys_free_but_for_the_culprit(shop: Shop) -> None:
    group = [item("1", "cash", "a", 10, group="g"), item("2", "b", "c", 1, group="g")]
    assert await outcomes(shop, *group) == ["group_failed", "insufficient_funds"]
    await shop.transfer("cash", "b", 1)
    assert await outcomes(shop, *group) == ["group_failed", "insufficient_funds"]
    renewed = [group[0], item("3", "b", "c", 1, group="g")]
    assert await outcomes(shop, *renewed) == ["posted", "posted"]
    assert [await shop.balance(code) for code in "abc"] == [10, 0, 1]


async def test_group_may_be_as_large_as_one_call(shop: Shop, service: Service) -> None:
    members = [item(f"k-{n}", "cash", "a", 1, group="g") for n in range(1_000)]
    singles = [item(f"s-{n}", "cash", "b", 1) for n in range(499)]
    assert await outcomes(shop, *singles, *members) == ["posted"] * 1_499
    before = await row_counts(service)
    failing = [
        *({**member, "key": f"again-{member['key']}"} for member in members[1:]),
        item("x", "c", "a", 1, group="g"),
    ]
    assert await outcomes(shop, *failing) == ["group_failed"] * 999 + ["insufficient_funds"]
    after = await row_counts(service)
    assert (after["transfers"], after["entries"]) == (before["transfers"], before["entries"])
    too_many = await send(shop, *members, item("one more", "cash", "a", 1, group="g"))
    assert (too_many.status, too_many.code) == (400, "invalid_request")
    assert "'g'" in too_many.json["detail"]


async def test_group_whose_items_do_not_follow_each_other(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    for between in ({}, {"group": "h"}):
        answer = await send(
            shop,
            item("1", "cash", "a", 1, group="g"),
            item("2", "cash", "a", 1, **between),
            item("3", "cash", "a", 1, group="g"),
        )
        assert (answer.status, answer.code) == (400, "invalid_request")
        assert answer.json["detail"] == "Item 2: the items of group 'g' do not follow each other."
    assert await row_counts(service) == before
    assert await outcomes(shop, item("1", "cash", "a", 1)) == ["posted"]


async def test_twin_keys_within_a_batch(shop: Shop) -> None:
    first = item("k", "cash", "a", 5)
    answer = await send(
        shop, first, first, item("k", "cash", "a", 6), item("n", "b", "a", 1), item("n", "b", "a", 1)
    )
    posted, again, other, short, short_again = answer.json["results"]
    assert posted == again
    assert (other["outcome"], other["error"]["differs"]) == ("idempotency_conflict", ["legs"])
    assert short == short_again
    assert short["outcome"] == "insufficient_funds"
    assert await shop.balance("a") == 5


async def test_twin_keys_far_apart_and_across_groups(shop: Shop) -> None:
    twin = item("k", "cash", "a", 5)
    filler = [item(f"f-{n}", "cash", "b", 1) for n in range(1_200)]
    found = await outcomes(shop, twin, *filler, twin)
    assert found == ["posted"] * 1_202
    assert await shop.balance("a") == 5
    failing = [
        item("m", "cash", "c", 5, group="g"),
        item("n", "b", "c", 10_000, group="g"),
        item("m", "cash", "c", 5),
    ]
    assert await outcomes(shop, *failing) == ["group_failed", "insufficient_funds", "posted"]
    assert await shop.balance("c") == 5


async def test_key_of_a_single_in_a_batch_and_back(shop: Shop) -> None:
    single = await shop.transfer("cash", "a", 5, key="k")
    batch = (await send(shop, item("k", "cash", "a", 5))).json["results"][0]
    assert batch["transfer"] == single.json
    assert await outcomes(shop, item("j", "cash", "b", 5)) == ["posted"]
    again = await shop.transfer("cash", "b", 5, key="j")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert (await shop.balance("a"), await shop.balance("b")) == (5, 5)


async def test_legs_conditions_and_metadata_of_items(shop: Shop) -> None:
    legs = [{"account": "cash", "amount": -3}, {"account": "a", "amount": 1}, {"account": "b", "amount": 2}]
    answer = await send(
        shop,
        {"key": "1", "legs": legs, "metadata": {"x": "y"}, "effective_at": "2025-01-01T00:00:00Z"},
        item("2", "cash", "a", 1, conditions=[{"account": "a", "version": 0}]),
        item("3", "cash", "a", 1, conditions=[{"account": "a", "version": 1}]),
    )
    first, stale, good = answer.json["results"]
    assert (first["transfer"]["metadata"], first["transfer"]["effective_at"]) == (
        {"x": "y"},
        "2025-01-01T00:00:00Z",
    )
    assert (stale["outcome"], good["outcome"]) == ("version_mismatch", "posted")


async def test_dry_run_of_a_batch(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    items = [item("1", "cash", "a", 5), item("2", "a", "b", 3), item("3", "a", "b", 3)]
    assert await outcomes(shop, *items, dry_run=True) == ["posted", "posted", "insufficient_funds"]
    assert await row_counts(service) == before
    many = await send(shop, *(item(f"k-{n}", "cash", "a", 1) for n in range(1_001)), dry_run=True)
    assert (many.status, many.code) == (400, "invalid_request")
    assert await outcomes(shop, *items) == ["posted", "posted", "insufficient_funds"]


async def test_bounds_of_a_batch(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    none = await send(shop)
    assert (none.status, none.code) == (400, "invalid_request")
    legs = [{"account": "cash", "amount": -200}, *[{"account": "a", "amount": 1}] * 200]
    items = [{"key": f"k-{n}", "legs": legs} for n in range(100)]
    answer = await send(shop, *items)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "20000" in answer.json["detail"].replace(",", "")
    bad = await send(shop, item("1", "cash", "a", 1), {"key": "2", "from": "cash", "to": "cash", "amount": 1})
    assert (bad.status, bad.code) == (400, "invalid_request")
    assert bad.json["detail"].startswith("Item 1: ")
    assert await row_counts(service) == before
    assert await outcomes(shop, *items[:99]) == ["posted"] * 99
