"""Bad input over the ledger's routes: a 4xx with a code and a sentence, nothing written, and the key still free."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest

from core.access import api_keys
from core.database import open_database
from core.service import Service
from core.settings import Settings
from tests.handlers.ledger.ledger_client import Answer, ApiClient, Shop, row_counts

TOP = 2**62 - 1
ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def shop(api: ApiClient, api_key: Callable[..., Awaitable[str]]) -> Shop:
    found = Shop(api, await api_key())
    await found.open("cash", floor=None)
    await found.open("a", "b", "frozen", "closed")
    await found.open("euro", currency="EUR", floor=None)
    for state in ("frozen", "closed"):
        await found.call("PATCH", f"/v1/accounts/{state}", {"state": state})
    return found


def legs(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"legs": [{"account": account, "amount": amount} for account, amount in pairs]}


def nested(depth: int) -> dict[str, Any]:
    found: Any = "x"
    for _ in range(depth):
        found = {"a": found}
    return {"from": "cash", "to": "a", "amount": 5, "metadata": found}


GOOD = {"from": "cash", "to": "a", "amount": 5}

# A name, what the body becomes, the status, the code, and a part of the sentence.
BAD_TRANSFERS: list[tuple[str, Any, int, str, str]] = [
    ("amount: zero", GOOD | {"amount": 0}, 400, "invalid_request", "$.amount"),
    ("amount: negative", GOOD | {"amount": -5}, 400, "invalid_request", ">= 1"),
    ("amount: one too large", GOOD | {"amount": TOP + 1}, 400, "invalid_request", f"<= {TOP}"),
    ("amount: beyond bigint", GOOD | {"amount": 2**63}, 400, "invalid_request", "$.amount"),
    ("amount: 1,000 digits", GOOD | {"amount": 10**999}, 400, "malformed_json", "JSON"),
    ("amount: float", GOOD | {"amount": 12.5}, 400, "invalid_request", "integer in the minor unit"),
    ("amount: whole float", GOOD | {"amount": 12.0}, 400, "invalid_request", "integer in the minor unit"),
    ("amount: text", GOOD | {"amount": "12"}, 400, "invalid_request", "got a text"),
    ("amount: true", GOOD | {"amount": True}, 400, "invalid_request", "got true or false"),
    ("amount: null", GOOD | {"amount": None}, 400, "invalid_request", "Give `from`, `to` and `amount`"),
    ("amount: list", GOOD | {"amount": [5]}, 400, "invalid_request", "got a list"),
    ("no amount", {"from": "cash", "to": "a"}, 400, "invalid_request", "Give `from`, `to` and `amount`"),
    ("nothing", {}, 400, "invalid_request", "or `legs`"),
    ("both forms", GOOD | legs(("cash", -1), ("a", 1)), 400, "invalid_request", "not both"),
    ("to itself", GOOD | {"to": "cash"}, 400, "invalid_request", "the same account"),
    ("from: number", GOOD | {"from": 17}, 400, "invalid_request", "$.from"),
    ("from: empty", GOOD | {"from": ""}, 400, "invalid_request", "$.from"),
    ("from: 129 characters", GOOD | {"from": "a" * 129}, 400, "invalid_request", "length <= 128"),
    ("from: a space", GOOD | {"from": "a b"}, 400, "invalid_request", "$.from"),
    ("from: a line break at the end", GOOD | {"from": "cash\n"}, 400, "invalid_request", "U+000A"),
    ("from: other letters", GOOD | {"from": "счёт"}, 400, "invalid_request", "$.from"),
    ("unknown field", GOOD | {"amout": 5}, 400, "invalid_request", "`amout`"),
    ("unknown account", GOOD | {"to": "nobody"}, 404, "account_not_found", "Account 'nobody' does not exist."),
    ("unknown source", GOOD | {"from": "nobody"}, 404, "account_not_found", "'nobody'"),
    ("frozen account", GOOD | {"to": "frozen"}, 409, "account_frozen", "Account 'frozen' is frozen."),
    ("closed account", GOOD | {"to": "closed"}, 409, "account_closed", "Account 'closed' is closed."),
    ("mixed currencies", GOOD | {"to": "euro"}, 422, "currency_mismatch", "different currencies"),
    ("another currency", GOOD | {"currency": "EUR"}, 422, "currency_mismatch", "different currencies"),
    ("currency: small letters", GOOD | {"currency": "usd"}, 400, "invalid_request", "$.currency"),
    ("currency: empty", GOOD | {"currency": ""}, 400, "invalid_request", "$.currency"),
    ("one leg", legs(("a", 5)), 400, "invalid_request", "length >= 2"),
    ("no legs", legs(), 400, "invalid_request", "length >= 2"),
    ("unbalanced legs", legs(("cash", -5), ("a", 4)), 422, "legs_unbalanced", "sum to -1"),
    ("unbalanced currencies", legs(("cash", -5), ("euro", 5)), 422, "currency_mismatch", "currencies"),
    ("leg of zero", legs(("cash", -5), ("a", 5), ("b", 0)), 400, "invalid_request", "not be zero"),
    ("leg: float", legs(("cash", -5), ("a", 5.0)), 400, "invalid_request", "$.legs[1].amount"),
    ("leg: too large", legs(("cash", -TOP - 1), ("a", TOP + 1)), 400, "invalid_request", "$.legs[0].amount"),
    ("legs that move too much", legs(*[("cash", -TOP), ("a", TOP)] * 2), 400, "invalid_request", "in all"),
    ("4,001 legs", legs(*[("cash", -1), ("a", 1)] * 2000, ("a", 1)), 400, "invalid_request", "length <= 4000"),
    ("leg without account", {"legs": [{"amount": 1}, {"amount": -1}]}, 400, "invalid_request", "`account`"),
    ("kind: capitals", GOOD | {"kind": "Sale"}, 400, "invalid_request", "$.kind"),
    ("kind: long", GOOD | {"kind": "a" * 65}, 400, "invalid_request", "$.kind"),
    ("reference: empty", GOOD | {"reference": ""}, 400, "invalid_request", "$.reference"),
    ("reference: long", GOOD | {"reference": "é" * 256}, 400, "invalid_request", "length <= 255"),
    ("reference: NUL", GOOD | {"reference": "a\0b"}, 400, "invalid_request", "U+0000"),
    ("reference: control", GOOD | {"reference": "a\x1b[31m"}, 400, "invalid_request", "U+001B"),
    ("metadata: number", GOOD | {"metadata": {"n": 5}}, 400, "invalid_request", "$.metadata"),
    ("metadata: 51 pairs", GOOD | {"metadata": {str(n): "" for n in range(51)}}, 400, "invalid_request", "50"),
    ("metadata: long value", GOOD | {"metadata": {"n": "a" * 501}}, 400, "invalid_request", "length <= 500"),
    ("metadata: long name", GOOD | {"metadata": {"n" * 41: ""}}, 400, "invalid_request", "length <= 40"),
    ("metadata: control", GOOD | {"metadata": {"n": "\u0085"}}, 400, "invalid_request", "U+0085"),
    ("metadata: nested", nested(2), 400, "invalid_request", "$.metadata"),
    ("deep", nested(40), 400, "malformed_json", "32 levels"),
    ("time without offset", GOOD | {"effective_at": "2025-01-01T00:00:00"}, 400, "invalid_request", "effective_at"),
    ("no such day", GOOD | {"effective_at": "2025-02-29T00:00:00Z"}, 400, "invalid_request", "effective_at"),
    ("before the calendar", GOOD | {"effective_at": "0001-01-01T00:00:00+05:00"}, 400, "invalid_request", "years"),
    ("after the calendar", GOOD | {"effective_at": "9999-12-31T23:59:59-05:00"}, 400, "invalid_request", "years"),
    ("condition: unknown", GOOD | {"conditions": [{"account": "nobody"}]}, 404, "account_not_found", "'nobody'"),
    ("condition: negative", GOOD | {"conditions": [{"account": "a", "version": -1}]}, 400, "invalid_request", ">= 0"),
    ("condition: large", GOOD | {"conditions": [{"account": "a", "version": 2**63}]}, 400, "invalid_request", "<="),
    ("101 conditions", GOOD | {"conditions": [{"account": "a"}] * 101}, 400, "invalid_request", "<= 100"),
    ("dry_run: text", GOOD | {"dry_run": "yes"}, 400, "invalid_request", "$.dry_run"),
    ("list", [GOOD], 400, "invalid_request", "expected an object"),
]  # fmt: skip

BAD_BYTES: list[tuple[str, bytes, str]] = [
    ("no body", b"", "invalid_request"),
    ("cut off", b'{"from":"cash","to":"a","amount":5', "malformed_json"),
    ("two documents", b'{"from":"cash","to":"a","amount":5}{}', "malformed_json"),
    ("NaN", b'{"from":"cash","to":"a","amount":NaN}', "malformed_json"),
    ("comment", b'{"from":"cash","to":"a","amount":5/*!*/}', "malformed_json"),
    ("duplicate key", b'{"from":"cash","to":"a","amount":5,"amount":500}', "duplicate_json_key"),
    ("escaped duplicate", rb'{"from":"cash","to":"a","amount":5,"am\u006funt":500}', "duplicate_json_key"),
    ("duplicate in a leg", b'{"legs":[{"account":"cash","amount":-5,"amount":-5}]}', "duplicate_json_key"),
    ("latin 1", '{"from":"cash","to":"a","amount":5,"reference":"é"}'.encode("latin-1"), "malformed_json"),
    ("UTF-16", '{"from":"cash","to":"a","amount":5}'.encode("utf-16"), "malformed_json"),
    ("byte order mark", b'\xef\xbb\xbf{"from":"cash","to":"a","amount":5}', "malformed_json"),
    ("lone surrogate", rb'{"from":"cash","to":"a","amount":5,"reference":"\ud800"}', "malformed_json"),
    ("100,000 levels", b'{"metadata":' + b"[" * 100_000, "malformed_json"),
]


async def test_bad_transfers(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    for name, body, status, code, says in BAD_TRANSFERS:
        answer = await shop.post("/v1/transfers", body, key="k")
        assert (answer.status, answer.code) == (status, code), name
        assert says in answer.json["detail"], (name, answer.json["detail"])
    for name, data, code in BAD_BYTES:
        answer = await shop.call("POST", "/v1/transfers", data=data, key="k")
        assert (answer.status, answer.code) == (400, code), name
    assert await row_counts(service) == before
    answer = await shop.post("/v1/transfers", GOOD, key="k")
    assert answer.status == 201
    assert "Idempotent-Replayed" not in answer.headers


async def test_the_same_in_a_batch(shop: Shop, service: Service) -> None:
    """What is malformed refuses the whole batch and says where; what the ledger refuses is the item's outcome."""
    before = await row_counts(service)
    first = {**GOOD, "key": "first"}
    for name, body, status, code, says in BAD_TRANSFERS:
        if isinstance(body, dict) and "dry_run" not in body:
            items = [] if status == 400 else [first]
            answer = await shop.call(
                "POST", "/v1/transfers/batch", {"transfers": [*items, {**body, "key": "k"}], "dry_run": True}
            )
            if status == 400:
                assert (answer.status, answer.code) == (400, code), name
                assert says.removeprefix("$.") in answer.json["detail"], (name, answer.json["detail"])
            else:
                results = answer.json["results"]
                assert [result["outcome"] for result in results] == ["posted", code], name
    for key in ("", "k" * 256, "ключ", "a\tb", 5, None):
        answer = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{**GOOD, "key": key}]})
        assert (answer.status, answer.code) == (400, "invalid_request"), key
    assert await row_counts(service) == before
    answer = await shop.call("POST", "/v1/transfers/batch", {"transfers": [{**GOOD, "key": "k"}]})
    assert answer.json["posted"] == 1


async def test_batch_of_5001(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    items = [{**GOOD, "key": f"k-{n}"} for n in range(5_001)]
    answer = await shop.call("POST", "/v1/transfers/batch", {"transfers": items})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "length <= 5000" in answer.json["detail"]
    assert await row_counts(service) == before


async def test_bodies_of_ten_megabytes(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    body = json.dumps(GOOD | {"reference": "x" * 10 * 1024 * 1024}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = {
        "Authorization": f"Bearer {shop.key}",
        "Content-Type": "application/json",
        "Idempotency-Key": "k",
    }
    for path in ("/v1/transfers", "/v1/transfers/batch", "/v1/holds", "/v1/accounts"):
        for sent in (BytesIO(body), chunks()):
            async with shop.api.post(path, data=sent, headers=headers) as response:
                answer = Answer(response.status, await response.read(), response.headers)
            assert (answer.status, answer.code) == (413, "payload_too_large")
            assert answer.json["limit_bytes"] in {2**20, 2**22}
    assert await row_counts(service) == before
    assert (await shop.post("/v1/transfers", GOOD, key="k")).status == 201


async def test_media_types_and_encodings(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    for name, value in (
        ("Content-Type", "text/plain"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Type", "application/json; charset=utf-16"),
        ("Content-Encoding", "gzip"),
    ):
        headers = {
            "Authorization": f"Bearer {shop.key}",
            "Content-Type": "application/json",
            "Idempotency-Key": "k",
        }
        async with shop.api.post(
            "/v1/transfers", data=json.dumps(GOOD), headers=headers | {name: value}
        ) as response:
            answer = Answer(response.status, await response.read(), response.headers)
        assert (answer.status, answer.code) == (415, "unsupported_media_type"), value
    assert await row_counts(service) == before


async def test_paths_and_queries(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    for path in (
        "/v1/transfers/1", "/v1/transfers/not-a-uuid", f"/v1/transfers/{ABSENT}0", "/v1/holds/%00",
        "/v1/holds/zz", "/v1/accounts/%20", "/v1/accounts/a%00", "/v1/accounts/-a", f"/v1/accounts/{'a' * 129}",
        "/v1/accounts/%D0%B0", "/v1/accounts?limit=0", "/v1/accounts?limit=1001", "/v1/accounts?state=lost",
        "/v1/accounts?currency=usd", "/v1/accounts?cursor=%20", "/v1/accounts?prefix=%25",
        "/v1/accounts/a/balance?at=now", "/v1/accounts/a/balance?at=2025-01-01T00:00:00",
        "/v1/accounts/a/balance?at=0001-01-01T00:00:00%2B05:00", "/v1/accounts/a/balance?by=hope",
        "/v1/accounts/a/entries?cursor=-1", "/v1/accounts/a/entries?cursor=9223372036854775808",
        "/v1/accounts/a/entries?recorded_from=0001-01-01T00:00:00Z", "/v1/accounts/a/entries?order=up",
        "/v1/accounts/a/entries?format=xml", "/v1/transfers?cursor=x", "/v1/transfers?cursor=-1",
        "/v1/transfers?cursor=12345678901234567890", "/v1/transfers?metadata=novalue", "/v1/transfers?metadata=:x",
        "/v1/transfers?recorded_before=9999-12-31T23:59:59-05:00", "/v1/transfers?limit=1&limit=2",
        "/v1/transfers?refrence=x", "/v1/holds?state=closed", "/v1/holds?cursor=1.5",
    ):  # fmt: skip
        answer = await shop.get(path)
        assert (answer.status, answer.code) == (400, "invalid_request"), path
    for path in (
        "/v1/transfers?cursor=9999999999999999999", "/v1/transfers?cursor=0", "/v1/holds?cursor=0",
        "/v1/accounts/a/entries?cursor=9223372036854775807", "/v1/accounts?cursor=zzz",
        "/v1/accounts/a/entries?recorded_from=0002-01-01T00:00:00Z&recorded_before=9998-12-31T23:59:59-23:59",
        "/v1/transfers?recorded_from=9998-12-31T23:59:59Z", "/v1/transfers?recorded_before=0002-01-01T00:00:00Z",
        "/v1/accounts/a/balance?at=9998-12-31T23:59:59Z&by=effective", "/v1/transfers?metadata=a:b:c%22%5C",
    ):  # fmt: skip
        assert (await shop.get(path)).status == 200, path
    for path in (f"/v1/transfers/{ABSENT}/reversals", f"/v1/holds/{ABSENT}/capture"):
        for bad in ({"amount": 0}, {"amount": -1}, {"amount": 1.5}, {"amount": TOP + 1}, {"amout": 1}):
            answer = await shop.post(path, bad, key="k")
            assert (answer.status, answer.code) == (400, "invalid_request"), (path, bad)
    assert await row_counts(service) == before


async def test_bad_accounts(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    good = {"code": "new", "currency": "USD"}
    bad: dict[str, Any]
    for bad in (
        {"code": ""}, {"code": "a" * 129}, {"code": "a/b"}, {"code": "-a"}, {"code": "a\n"}, {"code": 5},
        {"currency": "usd"}, {"currency": "US"}, {"currency": "U" * 13}, {"currency": None},
        {"limits": {"floor": 1.0}}, {"limits": {"floor": TOP + 1}}, {"limits": {"ceiling": "5"}},
        {"limits": {"transfer_max": 0}}, {"limits": {"day_count_max": -1}}, {"limits": {"flor": 0}}, {"limits": None},
        {"metadata": {"a": 1}}, {"metadata": []}, {"balance": 100},
    ):  # fmt: skip
        answer = await shop.call("POST", "/v1/accounts", good | bad)
        assert (answer.status, answer.code) == (400, "invalid_request"), bad
    for bad in (
        {"state": "lost"},
        {"currency": "EUR"},
        {"code": "b"},
        {"limits": {"transfer_max": 0}},
        {"balance": 1},
    ):
        answer = await shop.call("PATCH", "/v1/accounts/a", bad)
        assert (answer.status, answer.code) == (400, "invalid_request"), bad
    assert await row_counts(service) == before


async def test_keys_that_are_absent_revoked_or_too_weak(
    shop: Shop, service: Service, settings: Settings, api_key: Callable[..., Awaitable[str]]
) -> None:
    revoked = await api_key("transfers:write")
    owner = await open_database(settings, role=None, size=2)
    try:
        await api_keys.revoke_key(owner, revoked.split("_")[1])
    finally:
        await owner.close()
    before = await row_counts(service)
    good = shop.key
    for key in (
        "",
        "nonsense",
        "tsk_aaaaaaaaaaaa_" + "A" * 43,
        revoked,
        good[:-1] + ("A" if good[-1] != "A" else "B"),
    ):
        shop.key = key
        for answer in (await shop.post("/v1/transfers", GOOD, key="k"), await shop.get("/v1/accounts/a")):
            assert (answer.status, answer.code) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    calls: list[tuple[str, str, Any, str]] = [
        ("POST", "/v1/accounts", {"code": "x", "currency": "USD"}, "accounts:write"),
        ("PATCH", "/v1/accounts/a", {"state": "frozen"}, "accounts:write"),
        ("GET", "/v1/accounts", None, "accounts:read"),
        ("GET", "/v1/accounts/a", None, "accounts:read"),
        ("GET", "/v1/accounts/a/balance", None, "accounts:read"),
        ("GET", "/v1/accounts/a/entries", None, "accounts:read"),
        ("POST", "/v1/transfers", GOOD, "transfers:write"),
        ("POST", "/v1/transfers/batch", {"transfers": [{**GOOD, "key": "k"}]}, "transfers:write"),
        ("POST", f"/v1/transfers/{ABSENT}/reversals", {}, "transfers:write"),
        ("GET", "/v1/transfers", None, "transfers:read"),
        ("GET", f"/v1/transfers/{ABSENT}", None, "transfers:read"),
        ("POST", "/v1/holds", GOOD, "holds:write"),
        ("POST", f"/v1/holds/{ABSENT}/capture", {}, "holds:write"),
        ("POST", f"/v1/holds/{ABSENT}/void", None, "holds:write"),
        ("POST", f"/v1/holds/{ABSENT}/extend", {"expires_in": 5}, "holds:write"),
        ("GET", "/v1/holds", None, "holds:read"),
        ("GET", f"/v1/holds/{ABSENT}", None, "holds:read"),
        ("GET", "/v1/feed", None, "feed:read"),
    ]
    keys = {scope: await api_key(*(each for each in api_keys.SCOPES if each != scope)) for *_, scope in calls}
    for method, path, body, scope in calls:
        shop.key = keys[scope]
        answer = await shop.call(method, path, body, key="k")
        assert (answer.status, answer.code) == (403, "forbidden"), (method, path)
        assert scope in answer.json["detail"]
    assert await row_counts(service) == before
    shop.key = good
    assert (await shop.post("/v1/transfers", GOOD, key="k")).status == 201


async def test_idempotency_keys(shop: Shop, service: Service) -> None:
    before = await row_counts(service)
    for path, body in (
        ("/v1/transfers", GOOD),
        (f"/v1/transfers/{ABSENT}/reversals", {}),
        ("/v1/holds", GOOD),
        (f"/v1/holds/{ABSENT}/capture", {}),
        (f"/v1/holds/{ABSENT}/void", None),
        (f"/v1/holds/{ABSENT}/extend", {"expires_in": 5}),
    ):
        answer = await shop.call("POST", path, body)
        assert (answer.status, answer.code) == (400, "idempotency_key_required"), path
        answer = await shop.call("POST", path, body, key="k" * 256)
        assert (answer.status, answer.code) == (400, "idempotency_key_invalid"), path
    assert await row_counts(service) == before


async def test_largest_amount_there_is(shop: Shop) -> None:
    await shop.open("other-cash", floor=None)
    assert (await shop.transfer("cash", "other-cash", TOP)).status == 201
    for source, target in (("cash", "a"), ("a", "other-cash")):
        answer = await shop.transfer(source, target, 1)
        assert answer.code in {"balance_overflow", "insufficient_funds"}, (source, answer)
    answer = await shop.transfer("other-cash", "cash", TOP)
    assert [entry["balance_after"] for entry in answer.json["entries"]] == [0, 0]


async def test_bad_calls_do_not_disturb_the_good_ones_beside_them(shop: Shop) -> None:
    bodies = [GOOD if n % 2 else BAD_TRANSFERS[n % len(BAD_TRANSFERS)][1] for n in range(120)]
    answers = await asyncio.gather(*(shop.post("/v1/transfers", body) for body in bodies))
    assert {answer.status for answer in answers[1::2]} == {201}
    assert all(400 <= answer.status < 500 for answer in answers[::2])
    assert await shop.balance("a") == 5 * 60


async def test_a_bad_name_is_told_in_a_whole_sentence(shop: Shop) -> None:
    body = {"from": "a", "to": "b", "amount": 1}
    unnamed = await shop.post("/v1/transfers", {**body, "metadata": {"": "y"}})
    assert (unnamed.status, unnamed.json["error"]["code"]) == (400, "invalid_request")
    assert unnamed.json["detail"].startswith("a name in $.metadata: expected a text of length >= 1")
    long = (await shop.post("/v1/transfers", {**body, "x" * 100_000: 1})).json
    assert len(long["detail"]) < 500
