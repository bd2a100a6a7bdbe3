"""Merchants' orders over HTTP: tokens, repetitions, what a provider says, and what the old clients read."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core.access.rates import RateLimited, a_minute
from core.errors import Refusal, Unavailable
from core.payments.orders.merchants import Seeded
from handlers.payments.orders.routes import CREATE, ORDERS
from tests.handlers.payments.orders.conftest import BASE, Said, Shop

pytestmark = pytest.mark.shared


def seen(said: Said) -> tuple[int, Any, Any]:
    return said.status, said.json.get("detail"), said.json.get("error")


async def test_an_order_is_created_and_read_in_both_forms(shop: Shop) -> None:
    merchant = await shop.merchant()
    asked = shop.order(amount=10, price="0.10", alias="adyen")
    made = await shop.ask("POST", BASE, merchant, json=asked | {"subscription_id": "x", "event_id": ""})
    number = made.json["payment_id"]
    url = f"https://pay.adyen.test/{number}"
    assert made.body == (
        b'{"payment_id":%d,"status":"PAYMENT_PENDING","payment_url":"%s"}' % (number, url.encode())
    )
    assert shop.linker.calls[-1] == {
        "payment_id": number,
        "merchant_id": str(merchant.merchant_id),
        "provider": "adyen",
    }
    again = await shop.ask("POST", f"{BASE}/", merchant, json=asked | {"amount": 3, "alias": "nobody"})
    assert again.body == (
        b'{"message":"payment already exists","payment_id":%d,"status":"PAYMENT_PENDING"}' % number
    )
    shown = await shop.ask("GET", f"{BASE}/{number}/show", merchant)
    moment = shown.json["created_at"]
    assert moment.endswith("+00:00")
    assert b'"amount":10.0,"price":0.1,' in shown.body
    listed = await shop.ask("GET", f"{BASE}/?limit=1", merchant)
    assert listed.json == {
        "page": 1,
        "limit": 1,
        "total": 1,
        "has_next": False,
        "items": [
            {
                "payment_id": number,
                "order_id": asked["order_id"],
                "provider": "adyen",
                "amount": 10.0,
                "status": "PAYMENT_PENDING",
                "created_at": moment,
            }
        ],
    }
    assert (await shop.ask("GET", f"{BASE}?page=7", merchant)).json["items"] == []
    tracked = (await shop.ask("GET", f"{BASE}/{number}/tracking/", merchant)).json
    assert [event["event_type"] for event in tracked["events"]] == [
        "EVENT_PAYMENT_CREATED",
        "EVENT_PROVIDER_REQUEST_SENT",
    ]
    created, sent = tracked["events"]
    assert created["timestamp"] <= sent["timestamp"]
    assert (created["message"], created["payload"]) == (f"[{moment}] Payment created", None)
    assert [line.partition("] ")[2] for line in sent["message"].split("\n")] == [
        "Provider URL request sent",
        "Payment is pending and waiting for customer action.",
    ]
    assert sent["payload"] == json.dumps({"provider": "adyen", "payment_url": url}, separators=(",", ":"))


async def test_a_trusted_caller_names_merchant_plan_and_event(shop: Shop) -> None:
    merchant, other = await shop.merchant(), await shop.merchant(tokens=7)
    who = str(merchant.merchant_id)
    body = shop.order(subscription_id=str(merchant.subscription_id), event_id="e-1", amount=1e2)
    for at_port in (False, True):
        path = BASE if at_port else f"{BASE}/"
        said = await shop.ask("POST", path, who, json=body, at_port=at_port)
        assert said.status == 200
        body["order_id"] += 1_000_000
        said = await shop.ask("POST", path, who, json=body, at_port=at_port)
        assert seen(said)[:2] == (400, "event_id already used for another order")
        body["event_id"] = "e-2"
    # Another merchant has order ids and event ids of its own.
    stranger = body | {"subscription_id": other.subscription_id}
    assert (await shop.ask("POST", BASE, str(other.merchant_id), json=stranger)).status == 200
    for subscription_id in (other.subscription_id, 10**9):
        order = shop.order(subscription_id=subscription_id, event_id="e-3")
        said = await shop.ask("POST", BASE, who, json=order)
        assert seen(said)[:2] == (400, "Active subscription not found")
    assert await shop.used(merchant) == 2
    audit = await shop.owner.fetchrow(
        "SELECT source, amount FROM order_requests WHERE merchant_id = $1 AND event_id = 'e-1'",
        merchant.merchant_id,
    )
    assert tuple(audit) == ("payments:create", 100 * 10**8)


FAULTS: dict[str, dict[str, Any]] = {
    "order_id": {"order_id": 1.5},
    "amount": {"amount": "NaN"},
    "price": {"price": 0},
    "alias": {"alias": ""},
}


@pytest.mark.parametrize("field", FAULTS)
async def test_faults_of_an_order_are_listed_with_400(shop: Shop, field: str) -> None:
    said = await shop.create(await shop.merchant(), **FAULTS[field])
    (fault,) = said.json["detail"]
    assert (said.status, fault["loc"]) == (400, ["body", field])


async def test_refusals_of_the_create_route(shop: Shop) -> None:
    """Old shops take 400, 401 and 502 for failures, and everything else for a payment; they read JSON."""
    merchant = await shop.merchant(tokens=0)
    good = json.dumps(shop.order()).encode()
    long = b'{"order_id": 1, "x": "%s"}' % (b"x" * 300_000)
    trusted = {"X-Merchant-Id": "x"}
    cases: list[tuple[bytes, dict[str, str], int, Any]] = [
        (good, {}, 401, "unauthorized"),
        (good, {"X-API-Key": "nobody's"}, 401, "invalid api key"),
        (good, trusted, 400, "validation_failed"),
        (good, {"X-API-Key": merchant.api_key}, 400, "quota_exceeded"),
        (b"{", {"X-API-Key": merchant.api_key}, 400, "validation_failed"),
        (b"", {"X-API-Key": merchant.api_key}, 400, "validation_failed"),
        (long, {"X-API-Key": merchant.api_key}, 400, "payload_too_large"),
        (json.dumps(shop.order(alias="Stripe")).encode(), {"X-API-Key": merchant.api_key}, 400, "alias_not_found"),
        (json.dumps(shop.order(amount="1e999")).encode(), {"X-API-Key": merchant.api_key}, 400, "invalid_request"),
        (json.dumps(shop.order(price="1e-9")).encode(), {"X-API-Key": merchant.api_key}, 400, "invalid_request"),
        (json.dumps(shop.order(alias="a\0")).encode(), {"X-API-Key": merchant.api_key}, 400, "validation_failed"),
    ]  # fmt: skip
    for body, headers, status, word in cases:
        typed = {"Content-Type": "application/json"} | headers
        said = await shop.ask("POST", BASE, data=body, headers=typed)
        assert (said.status, said.json["error"]) == (status, word), (body[:90], said)
        assert said.headers["Content-Type"] == "application/json"
    missing = await shop.ask("POST", BASE, at_port=True, json=shop.order())
    assert (missing.status, missing.json["detail"][0]["loc"]) == (400, ["header", "X-Merchant-Id"])
    assert await shop.used(merchant) == 0


def test_no_refusal_of_the_create_route_looks_like_a_payment() -> None:
    for code in CREATE.problem_types:
        said = CREATE.refuse(Refusal(code, "No.", retry_after=2.5))
        assert said.status in {400, 401, 502}, code
        assert (said.content_type, said.headers["Retry-After"]) == ("application/json", "3")
    limited = CREATE.refuse(RateLimited(a_minute(1, "address"), 0, 1))
    assert (limited.status, "Retry-After" in limited.headers) == (502, True)
    assert CREATE.refuse(Refusal("some_new_code", "?")).status == 502
    hidden = CREATE.refuse(Refusal("no_provider", "A secret.", rules={"secret": 1}))
    assert "secret" not in str(hidden.text)
    away = ORDERS.refuse(Unavailable())
    assert (away.status, '"error":"payments_unavailable"' in str(away.text)) == (503, True)


async def test_tokens_are_never_overspent(shop: Shop) -> None:
    merchant = await shop.merchant(tokens=10)
    said = await asyncio.gather(*(shop.create(merchant) for _ in range(64)))
    assert [one.status for one in said].count(200) == 10
    assert {seen(one) for one in said if one.status != 200} == {
        (400, "Active subscription not found", "quota_exceeded")
    }
    assert await shop.used(merchant) == 10


async def test_equal_creates_at_once_are_one_payment(shop: Shop) -> None:
    merchant, before = await shop.merchant(), len(shop.linker.calls)
    order = shop.order()
    said = await asyncio.gather(*(shop.create(merchant, **order) for _ in range(64)))
    assert {one.status for one in said} == {200}
    assert len({one.json["payment_id"] for one in said}) == 1
    assert [one.json.get("message") for one in said].count(None) == 1
    assert len(shop.linker.calls) == before + 1
    assert await shop.used(merchant) == 1


@pytest.mark.parametrize(
    ("trouble", "answer", "status", "sentence"),
    [
        ("", (422, '{"detail": "no"}'), 502, "Provider URL generation failed"),
        ("busy", None, 502, "Provider URL generation failed"),
        ("silence", None, 200, None),
        ("500", None, 200, None),
        ("reset", None, 200, None),
        ("", (200, "{}"), 200, None),
        ("", (200, "no json"), 200, None),
    ],
)
async def test_the_token_comes_back_once_when_failure_is_known(
    shop: Shop, trouble: str, answer: tuple[int, str] | None, status: int, sentence: str | None
) -> None:
    merchant = await shop.merchant()
    shop.linker.troubles.after = [trouble]
    shop.linker.answers = [answer] if answer else []
    order = shop.order()
    said = await shop.create(merchant, **order)
    assert (said.status, said.json.get("detail")) == (status, sentence)
    assert await shop.used(merchant) == int(status == 200)
    if status == 200:
        assert (said.json["status"], said.json["payment_url"]) == ("PAYMENT_PENDING", None)
    again = await shop.create(merchant, **order)
    expected = "PAYMENT_PENDING" if status == 200 else "PAYMENT_FAILED"
    assert (again.json["message"], again.json["status"]) == ("payment already exists", expected)
    number = again.json["payment_id"]
    # A refusal from outside, and late money: the token comes back, and is used again; both once.
    for word, used in (("failed", 0), ("failed", 0), ("finished", 1), ("finished", 1), ("failed", 1)):
        assert (await shop.webhook(number, word)).status == 200
        assert await shop.used(merchant) == used, word
    assert (await shop.ask("GET", f"{BASE}/{number}/show", merchant)).json["status"] == "PAYMENT_FINISHED"
    tracked = (await shop.ask("GET", f"{BASE}/{number}/tracking", merchant)).json["events"]
    if sentence:
        assert tracked[1]["message"].endswith(sentence)
    kinds = [event["event_type"] for event in tracked]
    assert kinds.count("EVENT_MERCHANT_NOTIFICATION_SENT") == 2  # failed, and finished after all
    last = json.loads(tracked[-1]["payload"])
    assert last == {
        "payment_id": number,
        "order_id": order["order_id"],
        "merchant_id": merchant.merchant_id,
        "status": 2,
        "amount": "2.00000000",
        "price": "19.99000000",
    }


async def test_a_provider_that_is_not_there(shop: Shop) -> None:
    merchant = await shop.merchant()
    links: Any = shop.payments.providers["links"]
    usual, links._caller.base_url = links._caller.base_url, "http://127.0.0.1:9"
    try:
        said = await shop.create(merchant)
    finally:
        links._caller.base_url = usual
    assert seen(said)[:2] == (502, "Provider unreachable")
    assert await shop.used(merchant) == 0


async def test_a_merchant_sees_its_own_payments_alone(shop: Shop) -> None:
    merchant, other = await shop.merchant(), await shop.merchant()
    number = (await shop.create(merchant)).json["payment_id"]
    nobody: list[tuple[Seeded | str | None, bool, int, int]] = [
        # who, at the contract's port, status of one payment, status of the list
        (merchant, False, 200, 200),
        (merchant, True, 200, 200),
        (str(merchant.merchant_id), False, 200, 200),
        (other, False, 404, 200),
        (other, True, 404, 200),
        (str(other.merchant_id), True, 404, 200),
        ("abc", True, 422, 422),
        (None, False, 401, 401),
        (None, True, 200, 422),  # the old core showed any payment to its own network
        (Seeded(1, 1, "wrong"), True, 401, 401),
    ]
    for who, at_port, one, all_ in nobody:
        for path, status in ((f"/{number}/show", one), (f"/{number}/tracking", one), ("", all_)):
            said = await shop.ask("GET", BASE + path, who, at_port=at_port)
            assert said.status == status, (who, at_port, path)
    assert seen(await shop.ask("GET", f"{BASE}/{number}/show", other))[:2] == (404, "Payment not found")
    assert (await shop.ask("GET", BASE, other)).json["total"] == 0
    for text in ("abc", "0", "-1", "9" * 19, "9" * 40):
        assert (await shop.ask("GET", f"{BASE}/{text}/show", merchant)).status == 404
    # From elsewhere the header counts for nothing.
    far, trusted = {"X-Forwarded-For": "192.0.2.1"}, shop.order(subscription_id=1, event_id="e")
    who_far = str(merchant.merchant_id)
    assert (await shop.ask("GET", BASE, who_far, headers=far)).status == 401
    assert (await shop.ask("POST", BASE, who_far, headers=far, json=trusted)).status == 401
    # A page in the browser of somebody in the network is nobody to trust, even where every page may read answers.
    for at_port in (False, True):
        page = {"Origin": "http://evil.example"}
        assert (await shop.ask("GET", BASE, who_far, headers=page, at_port=at_port)).status == 401
    for query in ("page=0", "limit=101", "limit=x"):
        said = await shop.ask("GET", f"{BASE}?{query}", merchant)
        assert (said.status, said.json["detail"][0]["loc"][0]) == (422, "query")


async def test_webhooks(shop: Shop) -> None:
    merchant = await shop.merchant()
    number = (await shop.create(merchant)).json["payment_id"]
    stranger = await shop.webhook(10**12, "finished")
    assert stranger.body == b'{"status":"ok","result":{"message":"payment not found"}}'
    said = await asyncio.gather(
        *(shop.webhook(number, "finished", path=f"{BASE}/webhook/") for _ in range(8))
    )
    results = [one.json["result"] for one in said]
    assert results.count({"message": "payment updated", "payment_id": number, "status": 2}) == 1
    assert results.count({"message": "already processed", "status": 2}) == 7
    tracked = (await shop.ask("GET", f"{BASE}/{number}/tracking", merchant)).json
    assert tracked["payment_status"] == "PAYMENT_FINISHED"
    accepted, notified = tracked["events"][2:]
    assert (accepted["event_type"], accepted["message"]) == (
        "EVENT_PROVIDER_PAYMENT_ACCEPTED",
        "Provider webhook processed",
    )
    assert accepted["payload"] == f'{{"payment_id":{number},"status":"finished"}}'
    assert notified["event_type"] == "EVENT_MERCHANT_NOTIFICATION_SENT"
    # The inbox keeps it, once, and the merchant's principal is told as well.
    kept = await shop.owner.fetch(
        "SELECT event_type FROM inbox_events WHERE provider = 'links' AND object_id = $1", str(number)
    )
    assert [row["event_type"] for row in kept] == ["payment.finished"]
    told = await shop.owner.fetch(
        "SELECT e.event_type FROM outbox_events AS e JOIN order_merchants AS m USING (principal_id) WHERE m.id = $1",
        merchant.merchant_id,
    )
    assert [row["event_type"] for row in told] == ["payment.paid"]
    for signature in ("", "zz", "00" * 32):
        refused = await shop.ask(
            "POST",
            f"{BASE}/webhook",
            json={"payment_id": number, "status": "failed"},
            headers={"X-Internal-Signature": signature},
            at_port=True,
        )
        assert (refused.status, refused.json["error"]) == (403, "invalid_signature")
    invalid = await shop.webhook(0, "")
    assert (invalid.status, len(invalid.json["detail"])) == (422, 2)


async def test_the_examples_of_the_page_are_answered_as_it_says(shop: Shop) -> None:
    page = (Path(__file__).parents[4] / "docs" / "orders.md").read_text()
    (body,) = re.findall(r"-d '(\{.*\})'", page)
    (answer,) = re.findall(r"^# (\{\"payment_id.*\})$", page, re.MULTILINE)
    (notification,) = re.findall(r"```json\n(.*)\n```", page)
    merchant = await shop.merchant()
    made = await shop.ask("POST", BASE, merchant, json=json.loads(body))
    assert made.json.keys() == json.loads(answer).keys()
    number = made.json["payment_id"]
    await shop.webhook(number, "finished")
    told = (await shop.ask("GET", f"{BASE}/{number}/tracking", merchant)).json["events"][-1]["payload"]
    ours = {"payment_id": number, "merchant_id": merchant.merchant_id}
    assert json.loads(told) == json.loads(notification) | ours


async def test_a_merchant_is_told_with_bounded_retries_and_sees_each_attempt(shop: Shop) -> None:
    merchant = await shop.merchant()
    order = shop.order()
    number = (await shop.create(merchant, **order)).json["payment_id"]
    shop.linker.deaf_to.add(number)

    async def lines() -> list[str]:
        tracked = (await shop.ask("GET", f"{BASE}/{number}/tracking", merchant)).json
        event = tracked["events"][-1]
        assert event["event_type"] == "EVENT_MERCHANT_NOTIFICATION_SENT"
        return [] if event["message"] is None else event["message"].split("\n")

    await shop.webhook(number, "finished")
    assert await lines() == []
    await shop.send()
    published, failed = await lines()
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] published", published)
    assert re.fullmatch(r"\[[^]]+\] retry retries=1 next_retry_at=\d{4}-\S+", failed)
    shop.linker.deaf_to.clear()
    await shop.owner.execute("UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending'")
    await shop.send()
    assert (await lines())[3].endswith("] success status=201")
    told = [(headers, body) for headers, body in shop.linker.told if json.loads(body)["payment_id"] == number]
    assert [json.loads(body)["status"] for _, body in told] == [2, 2]
    assert told[0][1] == told[1][1]
    assert told[0][0]["webhook-id"] == told[1][0]["webhook-id"]
    assert told[0][0]["webhook-signature"].startswith("v1,")


async def test_the_contracts_own_port(shop: Shop) -> None:
    for path in (f"{BASE}/ping", "/health"):
        assert (await shop.ask("GET", path, at_port=True)).status == 200
    assert (await shop.ask("GET", f"{BASE}/ping")).body == b'{"ok":true}'
    assert (await shop.ask("GET", "/health", at_port=True)).body == b"OK"
    slashed = await shop.ask("GET", f"{BASE}/ping/", at_port=True)
    assert (slashed.status, slashed.headers["Location"]) == (307, f"{BASE}/ping")
    assert (await shop.ask("GET", "/nowhere", at_port=True)).body == b'{"detail":"Not Found"}'
    wrong = await shop.ask("PUT", BASE, at_port=True)
    assert (wrong.status, wrong.body) == (405, b'{"detail":"Method Not Allowed"}')
    # Each answer has an id of ours, whatever came; the common port takes over what came.
    given = {"X-Request-ID": "r-1"}
    for path in (f"{BASE}/ping", BASE, "/nowhere", "/health"):
        answers = [
            await shop.ask("GET", path, at_port=True, headers=given | more)
            for more in ({}, {"Origin": "http://a.b"})
        ]
        found = [one.headers["X-Request-ID"] for one in answers]
        assert [str(UUID(one)) for one in found] == found
        assert len(set(found)) == 2
    assert (await shop.ask("GET", f"{BASE}/ping", headers=given)).headers["X-Request-ID"] == "r-1"
