"""Single transfers over HTTP: what is posted, what is refused, how they are found, and how they are reversed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core.ledger.items import MAX_CALL_LEGS, Leg, Posting, operation_id
from core.ledger.sealing import seal_once
from core.ledger.transfers import PAGE_ENTRIES
from core.service import Service
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop, row_counts
from tests.invariants import faults

ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    """A shop with cash, three accounts in dollars and two in euros."""
    found = Shop(api, await api_key())
    await found.open("cash", floor=None)
    await found.open("a", "b", "c")
    await found.open("euro-cash", currency="EUR", floor=None)
    await found.open("euro", currency="EUR")
    return found


@pytest.fixture(autouse=True)
async def sound_books(database_url: str, shop: Shop) -> Any:
    """Whatever a test does, the books are sound after it."""
    yield
    assert await faults(database_url) == {}


def legs(*pairs: tuple[str, int]) -> dict[str, Any]:
    return {"legs": [{"account": account, "amount": amount} for account, amount in pairs]}


async def refused(answer: Answer, status: int, code: str) -> Any:
    assert (answer.status, answer.code) == (status, code)
    return answer.json


async def test_from_to_amount(shop: Shop) -> None:
    answer = await shop.transfer(
        "cash", "a", 1250, kind="top-up", reference="order-981", metadata={"b": "2", "a": "1"}
    )
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert "Idempotent-Replayed" not in answer.headers
    transfer = answer.json
    assert UUID(transfer["id"]).version == 8
    at = datetime.fromisoformat(transfer["recorded_at"])
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert transfer == {
        "id": transfer["id"], "kind": "top-up", "reference": "order-981", "metadata": {"a": "1", "b": "2"},
        "recorded_at": transfer["recorded_at"], "effective_at": transfer["recorded_at"], "reverses": None,
        "captures": None, "entries": [
            {"account": "cash", "amount": -1250, "version": 1, "balance_after": -1250},
            {"account": "a", "amount": 1250, "version": 1, "balance_after": 1250},
        ],
    }  # fmt: skip
    shown = await shop.get(f"/v1/transfers/{transfer['id']}")
    assert (shown.status, shown.json) == (200, transfer | {"reversed": 0})
    assert (await shop.balance("cash"), await shop.balance("a")) == (-1250, 1250)


async def test_transfer_that_is_not_there(shop: Shop) -> None:
    await refused(await shop.get(f"/v1/transfers/{ABSENT}"), 404, "transfer_not_found")
    hold = await shop.post("/v1/holds", {"from": "cash", "to": "a", "amount": 5})
    await refused(await shop.get(f"/v1/transfers/{hold.json['id']}"), 404, "transfer_not_found")


async def test_many_legs_and_an_account_twice(shop: Shop) -> None:
    parts = [("cash", -100), ("a", 60), ("b", 43), ("b", -3), *[("c", 1)] * 3, ("c", -3)]
    answer = await shop.post("/v1/transfers", legs(*parts))
    assert answer.status == 201
    assert [(entry["account"], entry["amount"]) for entry in answer.json["entries"]] == parts
    assert [entry["balance_after"] for entry in answer.json["entries"]] == [-100, 60, 43, 40, 1, 2, 3, 0]
    assert [entry["version"] for entry in answer.json["entries"]] == [1, 1, 1, 2, 1, 2, 3, 4]


async def test_several_currencies_balance_each(shop: Shop) -> None:
    exchange = legs(("cash", -110), ("a", 110), ("euro-cash", -100), ("euro", 100))
    assert (await shop.post("/v1/transfers", exchange)).status == 201
    assert (await shop.balance("a"), await shop.balance("euro")) == (110, 100)
    uneven = legs(("cash", -100), ("euro", 100))
    await refused(await shop.post("/v1/transfers", uneven), 422, "currency_mismatch")
    await refused(await shop.post("/v1/transfers", {**exchange, "currency": "USD"}), 422, "currency_mismatch")
    stated = await shop.transfer("cash", "a", 1, currency="EUR")
    assert (await refused(stated, 422, "currency_mismatch"))["account"] == "cash"
    assert (await shop.transfer("cash", "a", 1, currency="USD")).status == 201


async def test_funds_and_limits(shop: Shop) -> None:
    await shop.open("limited", floor=-10, ceiling=500, transfer_max=300, day_count_max=2, hour_amount_max=400)
    short = await refused(await shop.transfer("limited", "a", 11), 422, "insufficient_funds")
    assert (short["account"], short["detail"]) == (
        "limited",
        "Account 'limited' has 10 available, less than this takes.",
    )
    over = await refused(await shop.transfer("cash", "limited", 501), 422, "ceiling_exceeded")
    assert over["detail"] == "Account 'limited' can take at most 500 more."
    assert (await shop.transfer("cash", "limited", 500)).status == 201
    await refused(await shop.transfer("limited", "a", 301), 422, "transfer_limit_exceeded")
    assert (await shop.transfer("limited", "a", 300)).status == 201
    hourly = await refused(await shop.transfer("limited", "a", 101), 422, "hourly_amount_exceeded")
    assert hourly["detail"] == "Account 'limited' may send 100 more in this window."
    assert (await shop.transfer("limited", "a", 100)).status == 201
    await refused(await shop.transfer("limited", "a", 0 + 1), 422, "hourly_amount_exceeded")
    await shop.call("PATCH", "/v1/accounts/limited", {"limits": {"hour_amount_max": None}})
    await refused(await shop.transfer("limited", "a", 1), 422, "daily_count_exceeded")


async def test_conditions(shop: Shop) -> None:
    await shop.transfer("cash", "a", 100)

    def on(account: str, **demand: int) -> dict[str, Any]:
        return {"conditions": [{"account": account, **demand}]}

    stale = await refused(await shop.transfer("a", "b", 1, **on("a", version=0)), 409, "version_mismatch")
    assert stale["detail"] == "Account 'a' is at version 1, not at the expected one."
    low = await refused(
        await shop.transfer("a", "b", 60, **on("a", balance_at_least=41)), 409, "balance_too_low"
    )
    assert (low["account"], "40" in low["detail"]) == ("a", True)
    await refused(await shop.transfer("a", "b", 60, **on("b", balance_at_most=59)), 409, "balance_too_high")
    await refused(await shop.transfer("a", "b", 1, **on("nobody", version=0)), 404, "account_not_found")
    both: dict[str, Any] = {
        "conditions": [
            {"account": "a", "version": 1, "balance_at_least": 40, "balance_at_most": 40},
            {"account": "c", "version": 0, "balance_at_most": 0},
        ]
    }
    assert (await shop.transfer("a", "b", 60, **both)).status == 201


async def test_dry_run_keeps_nothing_and_uses_no_key(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    dry = await shop.transfer("cash", "a", 5, key="k", dry_run=True)
    assert dry.status == 200
    assert [entry["balance_after"] for entry in dry.json["entries"]] == [-5, 5]
    await refused(await shop.transfer("a", "b", 5, key="k", dry_run=True), 422, "insufficient_funds")
    await refused(await shop.transfer("a", "nobody", 5, key="k", dry_run=True), 404, "account_not_found")
    assert await row_counts(service) == before
    assert (await shop.balance("a"), await shop.balance("b")) == (0, 0)
    assert (await shop.transfer("cash", "b", 7, key="k")).status == 201
    again = await shop.transfer("cash", "b", 7, key="k", dry_run=True)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")


async def test_metadata_reference_and_effective_time_come_back(shop: Shop) -> None:
    metadata = {"emoji 🎟️": "ж" * 500, **{f"name-{n}": "" for n in range(49)}}
    answer = await shop.transfer(
        "cash",
        "a",
        1,
        reference="é" * 255,
        metadata=metadata,
        effective_at="2024-02-29T23:59:59.123456+05:30",
    )
    assert answer.status == 201
    assert answer.json["metadata"] == metadata
    assert answer.json["effective_at"] == "2024-02-29T18:29:59.123456Z"
    shown = (await shop.get(f"/v1/transfers/{answer.json['id']}")).json
    assert {name: shown[name] for name in answer.json} == answer.json


async def test_list_with_every_filter_to_the_end(shop: Shop) -> None:
    plan: list[dict[str, Any]] = [
        {
            "kind": ("sale", "refund")[n % 2],
            "reference": f"order-{n % 5}" if n % 3 else None,
            "metadata": {"shop": f"s:{n % 4}", "n": str(n)} if n % 2 else {},
        }
        for n in range(60)
    ]
    posted = []
    for n, more in enumerate(plan):
        source, target = ("cash", "ab"[n % 2]) if n < 50 else ("a", "c")
        posted.append((await shop.transfer(source, target, 1, **more)).json)
    newest_first = list(reversed(posted))
    times = [transfer["recorded_at"] for transfer in posted]

    async def found(**query: Any) -> list[str]:
        return [transfer["id"] for transfer in await shop.all("/v1/transfers", **query)]

    def wanted(keep: Callable[[dict[str, Any]], bool]) -> list[str]:
        return [transfer["id"] for transfer in newest_first if keep(transfer)]

    def touches(account: str) -> Callable[[dict[str, Any]], bool]:
        return lambda transfer: account in {entry["account"] for entry in transfer["entries"]}

    for limit in (1, 7, 60, 1000, None):
        assert await found(limit=limit) == wanted(lambda _: True)
    questions: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({"account": "a"}, touches("a")),
        ({"account": "c"}, touches("c")),
        ({"kind": "refund"}, lambda transfer: transfer["kind"] == "refund"),
        ({"reference": "order-2"}, lambda transfer: transfer["reference"] == "order-2"),
        ({"metadata": "shop:s:3"}, lambda transfer: transfer["metadata"].get("shop") == "s:3"),
        ({"recorded_from": times[20]}, lambda transfer: transfer["recorded_at"] >= times[20]),
        ({"recorded_before": times[20]}, lambda transfer: transfer["recorded_at"] < times[20]),
        (
            {"recorded_from": times[9], "recorded_before": times[10]},
            lambda transfer: transfer["recorded_at"] == times[9],
        ),
        (
            {"account": "a", "kind": "sale", "reference": "order-4", "recorded_from": times[5]},
            lambda transfer: (
                touches("a")(transfer)
                and (transfer["kind"], transfer["reference"]) == ("sale", "order-4")
                and transfer["recorded_at"] >= times[5]
            ),
        ),
        (
            {"account": "b", "metadata": "shop:s:1", "kind": "refund", "recorded_before": times[49]},
            lambda transfer: (
                touches("b")(transfer)
                and transfer["metadata"].get("shop") == "s:1"
                and transfer["recorded_at"] < times[49]
            ),
        ),
        (
            {"kind": "refund", "reference": "order-1", "metadata": "shop:s:3"},
            lambda transfer: (
                (transfer["kind"], transfer["reference"]) == ("refund", "order-1")
                and transfer["metadata"].get("shop") == "s:3"
            ),
        ),
        ({"kind": "nothing"}, lambda _: False),
        ({"metadata": "shop:s"}, lambda _: False),
    ]
    for query, keep in questions:
        for limit in (3, 100):
            assert await found(limit=limit, **query) == wanted(keep), query
    await refused(await shop.get("/v1/transfers", account="nobody"), 404, "account_not_found")


async def test_batch_and_its_pages(shop: Shop) -> None:
    items = [
        {"key": f"i-{n}", "from": "cash", "to": "a", "amount": 1, "kind": "one-batch"} for n in range(25)
    ]
    assert (await shop.call("POST", "/v1/transfers/batch", {"transfers": items})).json["posted"] == 25
    for query in ({}, {"kind": "one-batch"}, {"account": "a"}):
        versions = [
            transfer["entries"][1]["version"]
            for transfer in await shop.all("/v1/transfers", limit=4, **query)
        ]
        assert versions == list(range(25, 0, -1))


async def test_reverse_the_whole(shop: Shop) -> None:
    original = (await shop.post("/v1/transfers", legs(("cash", -100), ("a", 97), ("b", 3)))).json
    path = f"/v1/transfers/{original['id']}/reversals"
    answer = await shop.post(path, {"reference": "r", "metadata": {"why": "mistake"}})
    assert answer.status == 201
    reversal = answer.json
    assert (reversal["reverses"], reversal["kind"], reversal["reference"]) == (
        original["id"],
        "reversal",
        "r",
    )
    assert [(e["account"], e["amount"]) for e in reversal["entries"]] == [
        ("cash", 100),
        ("a", -97),
        ("b", -3),
    ]
    assert (await shop.get(f"/v1/transfers/{original['id']}")).json["reversed"] == 100
    await refused(await shop.post(path), 409, "already_reversed")
    await refused(await shop.post(path, {"amount": 1}), 409, "already_reversed")
    await refused(
        await shop.post(f"/v1/transfers/{reversal['id']}/reversals"),
        409,
        "not_reversible",
    )
    await refused(await shop.post(f"/v1/transfers/{ABSENT}/reversals"), 404, "transfer_not_found")


async def test_parts_add_up_to_the_whole_exactly(shop: Shop) -> None:
    original = (await shop.post("/v1/transfers", legs(("cash", -100), ("a", 33), ("b", 66), ("c", 1)))).json
    path = f"/v1/transfers/{original['id']}/reversals"
    for amount in (1, 33, 7, 40):
        part = (await shop.post(path, {"amount": amount})).json
        assert part["entries"][0]["amount"] == amount
        assert sum(entry["amount"] for entry in part["entries"]) == 0
    too_much = await refused(await shop.post(path, {"amount": 20}), 422, "exceeds_reversible")
    assert too_much["detail"] == "Only 19 is left."
    assert (await shop.post(path)).json["entries"][0]["amount"] == 19
    assert [await shop.balance(code) for code in ("cash", "a", "b", "c")] == [0, 0, 0, 0]


async def test_reversal_needs_the_money(shop: Shop) -> None:
    original = (await shop.transfer("cash", "a", 100)).json
    await shop.transfer("a", "b", 30)
    path = f"/v1/transfers/{original['id']}/reversals"
    await refused(await shop.post(path), 422, "insufficient_funds")
    assert (await shop.post(path, {"amount": 70})).status == 201
    assert (await shop.get(f"/v1/transfers/{original['id']}")).json["reversed"] == 70


async def test_exchange_is_reversed_as_a_whole_only(shop: Shop) -> None:
    exchange = legs(("cash", -110), ("a", 110), ("euro-cash", -100), ("euro", 100))
    original = (await shop.post("/v1/transfers", exchange)).json
    path = f"/v1/transfers/{original['id']}/reversals"
    await refused(await shop.post(path, {"amount": 10}), 409, "not_reversible")
    assert (await shop.post(path)).status == 201
    assert (await shop.balance("a"), await shop.balance("euro")) == (0, 0)


async def test_times_are_the_same_whatever_offset_they_came_with(shop: Shop) -> None:
    original = (await shop.transfer("cash", "a", 5, effective_at="2024-12-31T23:00:00Z")).json
    path = f"/v1/transfers/{original['id']}/reversals"
    first = await shop.post(path, {"amount": 1, "effective_at": "2025-01-01T05:00:00+05:00"}, key="r")
    again = await shop.post(path, {"amount": 1, "effective_at": "2025-01-01T00:00:00Z"}, key="r")
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert first.json["effective_at"] == "2025-01-01T00:00:00Z"
    shown = (await shop.get(f"/v1/transfers/{first.json['id']}")).json
    assert shown["effective_at"] == first.json["effective_at"]


async def test_hot_account_from_64_clients(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.transfer("cash", "a", n) for n in range(1, 257)))
    assert {answer.status for answer in answers} == {201}
    assert sorted(answer.json["entries"][1]["version"] for answer in answers) == list(range(1, 257))
    assert await shop.balance("a") == 256 * 257 // 2


async def test_pages_end_early_where_transfers_have_thousands_of_legs(shop: Shop, service: Service) -> None:
    await shop.open("x", "y", floor=None)
    legs = (Leg("x", -1), Leg("y", 1)) * (MAX_CALL_LEGS // 2)
    ids = [operation_id(1, f"large-{number}") for number in range(5)]
    for id_ in ids:
        assert (await service.ledger.poster.submit(Posting(id_, 1, legs))).posted
    pages = [page async for page in shop.pages("/v1/transfers", limit=100)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [shown["id"] for page in pages for shown in page] == [str(id_) for id_ in reversed(ids)]
    assert all(len(shown["entries"]) == MAX_CALL_LEGS for page in pages for shown in page)

    while await seal_once(service.database):
        pass
    read: list[int] = []
    while events := (await shop.get("/v1/feed", after=len(read), limit=1000)).json["data"]:
        assert sum(len(event["data"].get("entries", ())) for event in events) <= PAGE_ENTRIES
        read += [event["position"] for event in events]
    assert read == list(range(1, len(read) + 1))
    assert len(read) == (await shop.get("/v1/feed", limit=1)).json["head"]
