"""Lists in one form, statements as CSV, filters on odd names, numbers as texts, and queries that lost their plus."""

import csv
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from handlers.app import SURFACES
from handlers.http.accepting import preferred, wants_text_numbers
from handlers.http.openapi import document
from handlers.ledger.accounts import _cell
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop

pytestmark = pytest.mark.shared

TEXT_NUMBERS = "application/json; numbers=string"


@pytest.fixture
async def shop(
    api: ApiClient, api_key: Callable[..., Awaitable[str]], request: pytest.FixtureRequest
) -> Shop:
    return Shop(api, await api_key(principal=request.node.name))


async def get(shop: Shop, path: str, accept: str) -> Answer:
    headers = {"Authorization": f"Bearer {shop.key}", "Accept": accept}
    async with shop.api.get(path, headers=headers) as response:
        return Answer(response.status, await response.read(), response.headers)


def test_every_list_of_v1_has_data_and_next() -> None:
    """A new list is seen by its route: a GET whose answer holds a list and a `next`, or has a limit in its query."""
    told = json.loads(json.dumps(document(SURFACES), default=str))
    lists = []
    for path, operations in told["paths"].items():
        names = {parameter.get("name") for parameter in operations.get("get", {}).get("parameters", ())}
        if path.startswith("/v1/") and "limit" in names:
            content = operations["get"]["responses"]["200"]["content"]["application/json"]
            schema = told["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            lists.append(path)
            assert {"data", "next"} <= set(schema["required"]), path
            assert schema["properties"]["data"]["type"] == "array"
    assert len(lists) >= 11, lists


async def test_a_last_page_that_is_full_has_no_next(shop: Shop) -> None:
    await shop.open("full:from", floor=None)
    await shop.open("full:to")
    for _ in range(4):
        await shop.transfer("full:from", "full:to", 1)
        await shop.post("/v1/holds", {"from": "full:from", "to": "full:to", "amount": 1})
    for path in (
        "/v1/accounts?prefix=full:",
        "/v1/transfers?account=full:to",
        "/v1/holds?account=full:from",
        "/v1/accounts/full:to/entries",
        "/v1/accounts/full:to/entries?order=descending",
    ):
        limit = 2 if "prefix" in path else 4
        page = (
            (await shop.get(path, limit=limit)).json
            if "?" not in path
            else (await shop.get(f"{path}&limit={limit}")).json
        )
        assert (len(page["data"]), page["next"]) == (limit, None), path


async def test_a_statement_as_csv_is_asked_for_by_its_type(shop: Shop) -> None:
    await shop.open("csv:from", floor=None, currency="EUR")
    await shop.open("csv:to", currency="EUR")
    await shop.transfer("csv:from", "csv:to", 1)
    path = "/v1/accounts/csv:to/entries"
    for accept, form in (
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("application/json;q=0.5, text/csv", "csv"),
        ("text/csv;q=0.5, application/json", "json"),
        ("*/*", "json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("image/png", "json"),
        ("text/csv;q=0", "json"),
        ("", "json"),
    ):
        answer = await get(shop, path, accept)
        assert answer.headers["Content-Type"].startswith(("application/json", "text/csv")[form == "csv"]), (
            accept
        )
        assert answer.headers["Vary"] == "Accept"
    assert (await get(shop, f"{path}?format=json", "text/csv")).json["currency"] == "EUR"
    (line,) = csv.DictReader(io.StringIO((await get(shop, path, "text/csv")).body.decode()))
    assert (line["account"], line["currency"], line["version"]) == ("csv:to", "EUR", "1")
    assert list(line)[:8] == [
        "version", "amount", "balance_after", "recorded_at", "effective_at", "transfer", "kind", "reference",
    ]  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.text(alphabet="'=+-@ax", max_size=6), min_size=2, max_size=2, unique=True))
def test_two_texts_are_two_cells_and_none_is_run(texts: list[str]) -> None:
    first, second = (str(_cell(text)) for text in texts)
    assert first != second
    for text, cell in zip(texts, (first, second), strict=True):
        assert not cell.startswith(("=", "+", "-", "@"))
        assert text == cell.removeprefix("'")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(alphabet=":ab", min_size=1, max_size=5), value=st.text(alphabet=":ab", max_size=5))
async def test_metadata_is_found_whatever_colons_it_has(shop: Shop, name: str, value: str) -> None:
    account = f"colons:{len(name)}"
    await shop.call("POST", "/v1/accounts", {"code": "colons", "currency": "USD", "limits": {"floor": None}})
    await shop.call("POST", "/v1/accounts", {"code": account, "currency": "USD"})
    made = await shop.transfer("colons", account, 1, metadata={name: value})
    assert made.status == 201
    found = (await shop.get("/v1/transfers", metadata=f"{name}:{value}", account=account, limit=1)).json[
        "data"
    ]
    assert [transfer["id"] for transfer in found] == [made.json["id"]]
    other = (await shop.get("/v1/transfers", metadata=f"{name}:{value}x", limit=1)).json["data"]
    assert other == []


async def test_money_does_not_go_in_a_circle_of_one(shop: Shop) -> None:
    await shop.open("circle", "circle:fees", floor=None)
    legs = [("circle", -5), ("circle", 3), ("circle", 2)]
    body: dict[str, Any] = {"legs": [{"account": account, "amount": amount} for account, amount in legs]}
    refused = await shop.post("/v1/transfers", body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    batch = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{"key": "circle", **body}]})
    assert batch.code == "invalid_request"
    assert (await shop.account("circle"))["version"] == 0
    body["legs"] += [{"account": "circle", "amount": -1}, {"account": "circle:fees", "amount": 1}]
    assert (await shop.post("/v1/transfers", body)).status == 201


async def test_a_lost_plus_is_named(shop: Shop) -> None:
    await shop.open("plus")
    for path in (
        "/v1/transfers?recorded_from=2026-01-01T00:00:00+02:00",
        "/v1/accounts/plus/balance?at=2026-01-01T00:00:00.5+0530",
        "/v1/webhook-deliveries?from=2026-01-01T00:00+00:00",
    ):
        async with shop.api.request(
            "GET",
            URL(path, encoded=True),
            headers={"Authorization": f"Bearer {shop.key}"},
        ) as response:
            problem = await response.json()
            assert (response.status, problem["error"]["code"]) == (400, "invalid_request")
            assert "%2B" in problem["detail"]
    assert "%2B" not in (await shop.get("/v1/transfers", recorded_from="yesterday")).json["detail"]


async def test_numbers_come_as_texts_where_they_are_asked_for(shop: Shop) -> None:
    await shop.open("texts:from", floor=None)
    await shop.open("texts:to")
    most = 2**62 - 1
    body = {"from": "texts:from", "to": "texts:to", "amount": most}
    plain = await shop.post("/v1/transfers", body, key="texts")
    headers = {"Authorization": f"Bearer {shop.key}", "Idempotency-Key": "texts", "Accept": TEXT_NUMBERS}
    async with shop.api.post("/v1/transfers", json=body, headers=headers) as response:
        answer = await response.json()
        assert (response.status, response.headers["Content-Type"]) == (201, TEXT_NUMBERS)
        assert response.headers["Idempotent-Replayed"] == "true"
    assert [entry["amount"] for entry in answer["entries"]] == [f"-{most}", f"{most}"]
    assert (answer["id"], answer["entries"][1]["version"]) == (plain.json["id"], "1")
    again = await shop.post("/v1/transfers", body, key="texts")
    assert again.body == plain.body  # the stored answer is as it was
    account = await get(shop, "/v1/accounts/texts:to", f"text/html;q=0.5, {TEXT_NUMBERS}")
    assert (account.json["balance"], account.json["limits"]["floor"]) == (str(most), "0")
    assert account.json["limits"]["ceiling"] is None
    assert account.headers["Vary"] == "Accept"
    missing = await get(shop, "/v1/accounts/nobody", TEXT_NUMBERS)
    assert (missing.code, missing.json["status"]) == ("account_not_found", 404)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/json; numbers=string", True),
        ('application/json;NUMBERS="string";q=0.9', True),
        ("text/csv, application/json;numbers=string", True),
        ("application/json; numbers=string; q=0", False),
        ("application/json; numbers=number", False),
        ("text/numbers=string", False),
        ("*/*; numbers=string", False),
    ],
)
def test_the_parameter_is_read_as_http_has_it(accept: str, *, wanted: bool) -> None:
    assert wants_text_numbers(accept) is wanted


@settings(max_examples=40)
@given(st.text(alphabet=",;=*/q01.a ", max_size=60))
def test_any_accept_header_is_read(accept: str) -> None:
    assert preferred(accept, ("application/json", "text/csv")) in {"application/json", "text/csv"}
    wants_text_numbers(accept)
