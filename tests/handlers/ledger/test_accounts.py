"""Accounts over HTTP: opened by their own code, changed, read now and at past times, and their statements."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import Leg, Posting, operation_id
from core.service import Service
from tests.handlers.ledger.ledger_client import ApiClient, Shop, connections, row_counts


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    return Shop(api, await api_key())


NO_LIMITS = {
    "floor": 0, "ceiling": None, "transfer_max": None, "hour_amount_max": None, "hour_count_max": None,
    "day_amount_max": None, "day_count_max": None,
}  # fmt: skip


async def test_open_once_by_its_own_code(shop: Shop) -> None:
    body = {"code": "customer:17", "currency": "USD", "metadata": {"tier": "gold"}}
    opened = await shop.call("POST", "/v1/accounts", body)
    assert opened.status == 201
    account = opened.json
    assert account.pop("created_at").endswith("Z")
    assert account.pop("id") > 0
    assert account == {
        "code": "customer:17", "currency": "USD", "state": "open", "balance": 0, "held": 0, "available": 0,
        "incoming": 0, "version": 0, "revision": 0, "limits": NO_LIMITS, "metadata": {"tier": "gold"},
    }  # fmt: skip
    again = await shop.call("POST", "/v1/accounts", body)
    assert (again.status, again.json) == (200, opened.json)
    shown = await shop.get("/v1/accounts/customer:17")
    assert (shown.status, shown.json) == (200, opened.json)


async def test_code_that_is_taken_names_what_differs(shop: Shop, service: Service) -> None:
    await shop.open("a", ceiling=100)
    before = await row_counts(service)
    body = {"code": "a", "currency": "EUR", "limits": {"ceiling": 101}}
    refused = await shop.call("POST", "/v1/accounts", body)
    assert (refused.status, refused.code) == (409, "account_exists")
    assert refused.json["differs"] == ["currency", "limits"]
    assert "currency and limits" in refused.json["detail"]
    assert await row_counts(service) == before


async def test_opening_again_after_a_change_shows_the_account_as_it_is(shop: Shop) -> None:
    body = {"code": "a", "currency": "USD"}
    await shop.call("POST", "/v1/accounts", body)
    await shop.call("PATCH", "/v1/accounts/a", {"limits": {"ceiling": 5}, "metadata": {"x": "y"}})
    again = await shop.call("POST", "/v1/accounts", body)
    assert (again.status, again.json["limits"]["ceiling"], again.json["metadata"]) == (200, 5, {"x": "y"})


async def test_one_of_many_equal_openings_opens(shop: Shop, service: Service) -> None:
    answers = await asyncio.gather(
        *(shop.call("POST", "/v1/accounts", {"code": "a", "currency": "USD"}) for _ in range(16))
    )
    assert sorted(answer.status for answer in answers) == [200] * 15 + [201]
    assert len({answer.body for answer in answers}) == 1
    assert (await row_counts(service))["account_events"] == 1


async def test_unknown_account(shop: Shop) -> None:
    for path in ("", "/balance", "/entries"):
        answer = await shop.get(f"/v1/accounts/nobody{path}")
        assert (answer.status, answer.code) == (404, "account_not_found")
        assert answer.json["account"] == "nobody"
    answer = await shop.call("PATCH", "/v1/accounts/nobody", {})
    assert (answer.status, answer.code) == (404, "account_not_found")


async def test_change_leaves_what_is_absent(shop: Shop) -> None:
    limits = {"floor": -50, "ceiling": 1000, "transfer_max": 100, "day_amount_max": 500, "hour_count_max": 0}
    body = {"code": "a", "currency": "USD", "limits": limits, "metadata": {"x": "1"}}
    await shop.call("POST", "/v1/accounts", body)
    changed = await shop.call(
        "PATCH", "/v1/accounts/a", {"limits": {"ceiling": None, "transfer_max": 200, "hour_amount_max": 7}}
    )
    assert changed.status == 200
    assert changed.json["limits"] == NO_LIMITS | limits | {
        "ceiling": None,
        "transfer_max": 200,
        "hour_amount_max": 7,
    }
    assert (changed.json["metadata"], changed.json["state"]) == ({"x": "1"}, "open")
    frozen = await shop.call("PATCH", "/v1/accounts/a", {"state": "frozen", "metadata": {"y": "2"}})
    assert (frozen.json["state"], frozen.json["metadata"]) == ("frozen", {"x": "1", "y": "2"})
    assert frozen.json["limits"] == changed.json["limits"]
    assert (await shop.get("/v1/accounts/a")).body == frozen.body


async def test_changes_at_once_keep_each_other(
    shop: Shop, database_url: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    """Each change waits for the account's lock, and only then reads what it leaves as it is."""
    await shop.open("a")
    changes: list[dict[str, Any]] = [
        {"state": "frozen"},
        {"metadata": {"x": "y"}},
        {"limits": {"ceiling": 100}},
        {"limits": {"transfer_max": 7, "day_count_max": 3}},
        {"limits": {"floor": -5}},
    ]
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    owner = await asyncpg.connect(database_url)
    async with owner.transaction():
        await owner.execute("SELECT FROM accounts FOR UPDATE")
        calls = [asyncio.create_task(shop.call("PATCH", "/v1/accounts/a", change)) for change in changes]
        await eventually(lambda: _is(owner.fetchval(waiting), len(changes)))
    answers = await asyncio.gather(*calls)
    await owner.close()
    assert {answer.status for answer in answers} == {200}
    account = await shop.account("a")
    assert (account["state"], account["metadata"]) == ("frozen", {"x": "y"})
    assert account["limits"] == NO_LIMITS | {
        "floor": -5,
        "ceiling": 100,
        "transfer_max": 7,
        "day_count_max": 3,
    }


async def _is(answer: Awaitable[int], wanted: int) -> bool:
    return await answer == wanted


async def test_limits_that_contradict_each_other(shop: Shop, service: Service) -> None:
    await shop.open("a", ceiling=10)
    before = await row_counts(service)
    body = {"code": "b", "currency": "USD", "limits": {"floor": 11, "ceiling": 10}}
    for answer in (
        await shop.call("POST", "/v1/accounts", body),
        await shop.call("PATCH", "/v1/accounts/a", {"limits": {"floor": 11}}),
    ):
        assert (answer.status, answer.code) == (400, "invalid_request")
    assert await row_counts(service) == before


async def test_frozen_and_closed(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a", "b")
    assert (await shop.transfer("cash", "a", 10)).status == 201
    await shop.call("PATCH", "/v1/accounts/a", {"state": "frozen"})
    for source, target in (("a", "b"), ("cash", "a")):
        answer = await shop.transfer(source, target, 1)
        assert (answer.status, answer.code, answer.json["account"]) == (409, "account_frozen", "a")
    not_empty = await shop.call("PATCH", "/v1/accounts/a", {"state": "closed"})
    assert (not_empty.status, not_empty.code) == (409, "account_not_empty")
    await shop.call("PATCH", "/v1/accounts/a", {"state": "open"})
    assert (await shop.transfer("a", "cash", 10)).status == 201
    assert (await shop.call("PATCH", "/v1/accounts/a", {"state": "closed"})).json["state"] == "closed"
    for state in ("open", "frozen"):
        refused = await shop.call("PATCH", "/v1/accounts/a", {"state": state})
        assert (refused.status, refused.code) == (409, "account_closed")
    answer = await shop.transfer("cash", "a", 1)
    assert (answer.status, answer.code) == (409, "account_closed")


async def test_account_with_a_hold_is_not_empty(shop: Shop) -> None:
    await shop.open("a", floor=None)
    await shop.open("b")
    held = await shop.post("/v1/holds", {"from": "a", "to": "b", "amount": 5})
    assert held.status == 201
    refused = await shop.call("PATCH", "/v1/accounts/a", {"state": "closed"})
    assert (refused.status, refused.code) == (409, "account_not_empty")


async def test_list_with_every_filter_to_the_end(shop: Shop, service: Service) -> None:
    openings = [
        Opening(f"{kind}:{number}", currency)
        for kind, currency in (("customer", "USD"), ("Customer", "EUR"), ("customers", "USD"))
        for number in range(20)
    ]
    await open_accounts(service.database, openings, 1)
    for number in range(7):
        await shop.call("PATCH", f"/v1/accounts/customer:{number}", {"state": "frozen"})

    async def codes(**query: Any) -> list[str]:
        found = [account["code"] async for page in pages(**query) for account in page]
        assert found == sorted(set(found))
        return found

    def pages(**query: Any) -> Any:
        return shop.pages("/v1/accounts", **query)

    every = sorted(opening.code for opening in openings)
    for limit in (1, 7, 20, 1000, None):
        assert await codes(limit=limit) == every
    assert [len(page) async for page in pages(limit=25)] == [25, 25, 10]
    assert await codes(currency="EUR", limit=7) == [code for code in every if code.startswith("Customer:")]
    assert await codes(prefix="customer:", limit=7) == [
        code for code in every if code.startswith("customer:")
    ]
    assert len(await codes(prefix="customer", limit=7)) == 40
    assert await codes(state="frozen", limit=2) == [f"customer:{number}" for number in range(7)]
    assert len(await codes(state="open", currency="USD", prefix="customer:", limit=3)) == 13
    assert await codes(currency="SYP") == []


async def test_balance_now_and_at_past_times(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a")
    opened_at = (await shop.account("a"))["created_at"]
    times = [(await shop.transfer("cash", "a", amount)).json["recorded_at"] for amount in (10, 20, 30)]
    now = await shop.get("/v1/accounts/a/balance")
    assert (now.json["balance"], now.json["version"], now.json["currency"]) == (60, 3, "USD")
    for place, (at, balance) in enumerate(zip(times, (10, 30, 60), strict=True), 1):
        found = (await shop.get("/v1/accounts/a/balance", at=at)).json
        assert (found["balance"], found["version"], found["by"]) == (balance, place, "recorded")
        moment = datetime.fromisoformat(at) - timedelta(microseconds=1)
        just_before = (await shop.get("/v1/accounts/a/balance", at=moment.isoformat())).json
        assert just_before["version"] == place - 1
    assert (await shop.get("/v1/accounts/a/balance", at=opened_at)).json["balance"] == 0
    elsewhere = datetime.fromisoformat(times[1]).astimezone().isoformat()
    assert (await shop.get("/v1/accounts/a/balance", at=elsewhere)).json["balance"] == 30


async def test_balance_by_recorded_and_by_effective_time(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a")
    now = datetime.now(UTC)
    yesterday, tomorrow = (now - timedelta(days=1)).isoformat(), (now + timedelta(days=1)).isoformat()
    first = (await shop.transfer("cash", "a", 100)).json["recorded_at"]
    await shop.transfer("cash", "a", 10, effective_at=yesterday)
    last = (await shop.transfer("cash", "a", 1, effective_at=tomorrow)).json["recorded_at"]

    async def balance(at: str, by: str) -> int:
        found: int = (await shop.get("/v1/accounts/a/balance", at=at, by=by)).json["balance"]
        return found

    assert [await balance(at, "recorded") for at in (yesterday, first, last, tomorrow)] == [0, 100, 111, 111]
    assert [await balance(at, "effective") for at in (yesterday, first, last, tomorrow)] == [
        10,
        110,
        110,
        111,
    ]


async def fill(service: Service, count: int, **more: Any) -> None:
    """Post `count` transfers of 1, 2, 3, … from cash to a, past HTTP."""
    limits = Limits(floor=None)
    await open_accounts(service.database, [Opening("cash", "USD", limits), Opening("a", "USD", limits)], 1)
    postings = [
        Posting(operation_id(1, f"fill-{n}"), 1, (Leg("cash", -n), Leg("a", n)), **more)
        for n in range(1, count + 1)
    ]
    outcomes = await service.ledger.poster.submit_many(postings)
    assert all(outcome.posted for outcome in outcomes)


async def test_statement_pages_either_way(shop: Shop, service: Service) -> None:
    await fill(service, 50, reference="r-1")

    async def versions(**query: Any) -> list[int]:
        return [line["version"] for line in await shop.all("/v1/accounts/a/entries", **query)]

    for limit in (1, 7, 50, 1000):
        assert await versions(limit=limit) == list(range(1, 51))
        assert await versions(limit=limit, order="descending") == list(range(50, 0, -1))
    page = (await shop.get("/v1/accounts/a/entries", limit=2)).json
    assert (page["code"], page["currency"], page["next"]) == ("a", "USD", 2)
    line = page["data"][1]
    assert (line["amount"], line["balance_after"], line["kind"], line["reference"]) == (
        2,
        3,
        "transfer",
        "r-1",
    )
    assert line["recorded_at"] == line["effective_at"]
    shown = (await shop.get(f"/v1/transfers/{line['transfer']}")).json
    assert shown["entries"][1] == {"account": "a", "amount": 2, "version": 2, "balance_after": 3}
    empty = (await shop.get("/v1/accounts/a/entries", cursor=50)).json
    assert (empty["data"], empty["next"]) == ([], None)


async def test_statement_between_two_times(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a")
    times = [(await shop.transfer("cash", "a", 1)).json["recorded_at"] for _ in range(9)]
    assert times == sorted(set(times))
    for first, last in ((0, 8), (3, 6), (4, 4)):
        query = {"recorded_from": times[first], "recorded_before": times[last], "limit": 2}
        for order in ("ascending", "descending"):
            found = await shop.all("/v1/accounts/a/entries", order=order, **query)
            assert sorted(line["version"] for line in found) == list(range(first + 1, last + 1))


async def test_statement_of_a_fee_shows_both_rows(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("merchant", "fees")
    legs = [("cash", -100), ("merchant", 100), ("merchant", -3), ("fees", 3)]
    answer = await shop.post("/v1/transfers", {"legs": [{"account": a, "amount": n} for a, n in legs]})
    assert answer.status == 201
    found = await shop.all("/v1/accounts/merchant/entries")
    assert [(line["amount"], line["balance_after"]) for line in found] == [(100, 100), (-3, 97)]
    assert len(await shop.all("/v1/transfers", account="merchant")) == 1


async def test_long_statement_as_csv_is_streamed_whole(
    shop: Shop,
    service: Service,
    eventually: Callable[..., Awaitable[Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = 20_500
    await fill(service, count)
    answer = await shop.get("/v1/accounts/a/entries", format="csv")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.csv"'
    assert answer.headers["Transfer-Encoding"] == "chunked"
    lines = csv.DictReader(io.StringIO(answer.body.decode()))
    balance = 0
    for version, line in enumerate(lines, 1):
        balance += version
        assert (int(line["version"]), int(line["amount"])) == (version, version)
        assert int(line["balance_after"]) == balance
    assert lines.line_num == count + 1
    assert line["recorded_at"].endswith("Z")
    down = (
        await shop.get("/v1/accounts/a/entries", format="csv", order="descending", cursor=4)
    ).body.decode()
    assert [line["version"] for line in csv.DictReader(io.StringIO(down))] == ["3", "2", "1"]

    # A reader that leaves in the middle is nobody's error.
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
    head = f"GET /v1/accounts/a/entries?format=csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shop.key}\r\n\r\n"
    others = connections(shop.api)
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()
    await eventually(lambda: connections(shop.api) == others)
    assert (await shop.get("/v1/accounts/a")).status == 200
    assert "Traceback" not in "".join(capsys.readouterr())


async def test_head_of_a_csv_is_its_headers(shop: Shop, service: Service) -> None:
    await fill(service, 5)
    path = "/v1/accounts/a/entries?format=csv"
    for _ in range(3):  # rows after the headers would break the next answer of the connection
        head = await shop.call("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert len((await shop.call("GET", path)).body.splitlines()) == 6


async def test_csv_runs_nothing_in_a_spreadsheet(shop: Shop) -> None:
    await shop.open("cash", floor=None)
    await shop.open("a")
    texts = ["=1+1", "+1", "-1", "@x", "plain", 'with "quotes", and comma', "жук"]
    for text in texts:
        assert (await shop.transfer("cash", "a", 1, reference=text)).status == 201
    answer = await shop.get("/v1/accounts/cash/entries", format="csv")
    lines = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [line["reference"] for line in lines] == ["'=1+1", "'+1", "'-1", "'@x", *texts[4:]]
    assert {line["amount"] for line in lines} == {"-1"}
