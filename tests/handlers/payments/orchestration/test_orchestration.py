"""Payments of internal services over HTTP, as the contract has them."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.access.rates import RateLimited, a_minute
from core.errors import Unavailable
from tests.handlers.payments.bytewise import send, spoiled
from tests.handlers.payments.orchestration.conftest import BASE, SERVICE, Contract, Said

pytestmark = pytest.mark.shared

PAGE = Path(__file__).parents[4] / "docs" / "orchestration.md"
FIELDS = {
    "id", "request_id", "caller_service", "resource_type", "resource_id", "amount_cents", "currency", "status",
    "payment_method", "payment_type", "provider", "provider_payment_id", "checkout_url", "provider_callback_hash",
    "provider_callback_url", "status_callback_url", "refundable_cents", "created_at", "updated_at",
}  # fmt: skip


def error(said: Said) -> tuple[int, str]:
    assert set(said.json) == {"error"}, said
    return said.status, said.json["error"]


async def test_a_payment_is_created_shown_listed_paid_and_not_cancelled_then(contract: Contract) -> None:
    asked = contract.order(metadata={"b": "<&>", "a": "\u2028"}, customer_ref=" c-1 ", currency=" usd ")
    said = await contract.ask("POST", "/payments", asked)
    payment = said.payment
    assert (said.status, said.body[-1:]) == (201, b"\n")
    assert rb'"metadata":{"a":"\u2028","b":"\u003c\u0026\u003e"}' in said.body
    assert set(payment) == FIELDS | {"metadata", "customer_ref"}
    assert payment["provider_callback_url"] == f"{BASE}/{payment['provider_callback_hash']}"
    assert (payment["status"], payment["currency"], payment["customer_ref"]) == (2, "USD", "c-1")
    assert (payment["refundable_cents"], payment["provider"]) == (1250, 1)
    created = datetime.strptime(payment["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 60
    # A repetition is answered as the payment stands; the header's request id counts where the body has none.
    path = f"/payments/{payment['id']}"
    assert (await contract.event(payment)).json == {"message": "Provider callback processed"}
    again = {name: value for name, value in asked.items() if name != "request_id"}
    said = await contract.ask("POST", "/payments", again, headers={"X-Request-ID": asked["request_id"]})
    assert (said.status, said.payment["id"], said.payment["status"]) == (201, payment["id"], 10)
    assert (await contract.ask("GET", path)).payment["status"] == 10
    query = f"caller_service=checkout&resource_type=order&resource_id={asked['resource_id']}&status=10"
    found = await contract.ask("GET", f"/payments?{query}&provider=Stripe&request_id={asked['request_id']}")
    assert [one["id"] for one in found.json["payments"]] == [payment["id"]]
    none = await contract.ask("GET", f"/payments?{query}&offset=1")
    assert (none.status, none.body) == (200, b"{}\n")
    refused = await contract.ask("POST", f"{path}/cancel", {"reason": "x"})
    assert error(refused) == (400, "invalid status: paid payments cannot be canceled")


async def test_another_request_under_the_same_key_is_refused_and_so_is_another_owner(
    contract: Contract,
) -> None:
    asked = contract.order()
    payment = (await contract.ask("POST", "/payments", asked)).payment
    for change in (
        {"amount_cents": 1},
        {"status_callback_url": "https://x.test"},
        {"recurring_interval": "day"},
    ):
        said = await contract.ask("POST", "/payments", asked | change)
        assert error(said) == (409, "payment already exists"), change
    assert error(await contract.ask("POST", "/payments", asked, caller="other"))[0] == 409
    for method, path in (("GET", ""), ("POST", "/cancel")):
        said = await contract.ask(method, f"/payments/{payment['id']}{path}", caller="other")
        assert error(said) == (404, "payment not found")
    assert (await contract.ask("GET", "/payments", caller="other")).json == {}
    await contract.key("office", SERVICE, f"{SERVICE}:all")
    assert (await contract.ask("GET", f"/payments/{payment['id']}", caller="office")).payment == payment
    assert (await contract.ask("POST", "/payments", asked, caller="office")).payment == payment


async def test_sixty_four_equal_creates_are_one_payment_and_one_call(contract: Contract) -> None:
    asked = contract.order()
    said = await asyncio.gather(*(contract.ask("POST", "/payments", asked) for _ in range(64)))
    assert {one.status for one in said} == {201}
    assert len({one.body for one in said}) == 1
    rows = await contract.owner.fetch(
        "SELECT a.id FROM payments AS p JOIN payment_attempts AS a ON a.payment_id = p.id WHERE p.request_id = $1",
        asked["request_id"],
    )
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"caller_service": " "}, "caller_service is required"),
        ({"resource_type": ""}, "resource_type is required"),
        ({"resource_id": None}, "resource_id is required"),
        ({"amount_cents": 0, "currency": ""}, "amount_cents must be > 0"),
        ({"currency": "us"}, "currency must be 3 letters"),
        ({"currency": "ABC"}, "currency is not supported, or not in this amount"),
        ({"payment_method": 3}, "payment_method must be hosted_card or payment_link"),
        ({"payment_type": 0}, "payment_type must be one_time or recurring"),
        ({"provider": 2}, "provider is invalid"),
        ({"status_callback_url": ""}, "status_callback_url is required"),
        ({"payment_type": 2}, "recurring_interval must be day, week, month, or year"),
        ({"payment_type": 2, "recurring_interval": "DAY"}, "recurring_interval_count must be > 0"),
        ({"customer_ref": "c" * 256}, "customer_ref must have at most 255 characters"),
        ({"resource_id": "a\0"}, "texts must not have a NUL character"),
        ({"amount_cents": "5"}, "invalid request body"),
        ({"amount_cents": 10.0}, "invalid request body"),
        ({"amount_cents": True}, "invalid request body"),
        ({"payment_method": "HOSTED_CARD"}, "invalid request body"),
        ({"payment_type": 2**31}, "invalid request body"),
        ({"metadata": {"a": 1}}, "invalid request body"),
    ],
)
async def test_fields_are_refused_with_the_contracts_words(
    contract: Contract, change: dict[str, Any], text: str
) -> None:
    assert error(await contract.ask("POST", "/payments", contract.order(**change))) == (400, text)


async def test_bodies_are_bound_as_by_the_contracts_framework(contract: Contract) -> None:
    asked = contract.order(metadata={"a": None}, unknown=[1])
    shouted = json.dumps({name.upper(): value for name, value in asked.items()}).encode()
    payment = (await contract.ask("POST", "/payments", shouted)).payment
    assert payment["request_id"] == asked["request_id"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers, text in (
        (b"caller_service=x", form, "caller_service is required"),
        (b"", {}, "caller_service is required"),
        (b"null", {}, "caller_service is required"),
        (b"{}", {"Content-Type": "text/plain"}, "invalid request body"),
        (b"{}", {"Content-Type": None}, "invalid request body"),
        (b"[]", {}, "invalid request body"),
        (b"{", {}, "invalid request body"),
        (b"\xff", {}, "invalid request body"),
        (b"{}", {"Content-Encoding": "gzip"}, "invalid request body"),
        (b"[" * 100_000, {}, "invalid request body"),
    ):
        said = await contract.ask("POST", "/payments", body, headers=headers)
        assert error(said) == (400, text), body[:20]
    too_large = await contract.ask("POST", "/payments", b" " * (2**20 + 1))
    assert error(too_large)[0] == 413


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/payments/x", 400, "invalid request"),
        ("/payments/-1", 400, "invalid request"),
        (f"/payments/{2**64}", 400, "invalid request"),
        ("/payments/0", 400, "invalid payment id"),
        (f"/payments/{2**64 - 1}", 404, "payment not found"),
        ("/payments?limit=x", 400, "invalid request"),
        ("/payments?status=2147483648", 400, "invalid request"),
        ("/payments?provider=paypal", 400, "invalid request"),
        ("/payments?limit=501", 400, "limit must be between 1 and 500"),
        ("/payments?limit=-1&status=4", 400, "limit must be between 1 and 500"),
        ("/payments?offset=-1", 400, "offset must be >= 0"),
        ("/payments?status=4", 400, "invalid status"),
    ],
)
async def test_ids_and_queries_are_refused_with_the_contracts_words(
    contract: Contract, path: str, status: int, text: str
) -> None:
    assert error(await contract.ask("GET", path)) == (status, text)


async def test_request_id_key_and_access_are_asked_for_in_this_order(contract: Contract) -> None:
    await contract.key("nobody", "another-service")
    blank = {"X-Request-ID": " ", "X-API-Key": " "}
    for common in (False, True):
        # Unknown paths and methods are told on the contract's own port only to those who may ask.
        places = [("GET", "/payments"), ("POST", "/payments"), ("GET", "/payments/1")]
        places += [] if common else [("GET", "/health"), ("GET", "/nowhere"), ("PUT", "/payments")]
        for method, path in places:
            said = await contract.ask(method, path, headers=blank, common=common)
            assert error(said) == (400, "x-request-id header is required")
            assert "X-Request-ID" not in said.headers
            said = await contract.ask(method, path, headers={"X-API-Key": " "}, common=common)
            assert error(said) == (401, "missing x-api-key header")
            said = await contract.ask(method, path, headers={"X-API-Key": "tsi_x"}, common=common)
            assert error(said) == (401, "invalid or expired api key")
            said = await contract.ask(method, path, caller="nobody", common=common)
            assert error(said) == (403, "forbidden")
    for given in ("an id of theirs", "réq", "заказ №1", "\U0001f9fe\xa0x"):
        for path in ("/payments", "/payments?limit=-1"):
            said = await contract.ask("GET", path, headers={"X-Request-ID": given})
            assert said.headers["X-Request-ID"] == given
    for given, most in (("x" * 1025, 32), ("a\x85b", 32)):
        said = await contract.ask("GET", "/payments", headers={"X-Request-ID": given})
        assert len(said.headers["X-Request-ID"]) == most


async def test_the_contracts_own_port_speaks_its_dialect(contract: Contract) -> None:
    assert (await contract.ask("GET", "/health")).body == b'{"status":"ok"}\n'
    for path in ("/nowhere", "/payments/", "/docs", "/metrics", "/ready"):
        said = await contract.ask("GET", path)
        assert (said.status, said.json) == (404, {"message": "Not Found"}), path
    for method, path, allowed in (
        ("PUT", "/payments", "OPTIONS, GET, POST"),
        ("HEAD", "/health", "OPTIONS, GET"),
        ("GET", "/payments/1/cancel", "OPTIONS, POST"),
    ):
        said = await contract.ask(method, path)
        assert (said.status, said.headers["Allow"]) == (405, allowed)
        assert method == "HEAD" or said.json == {"message": "Method Not Allowed"}
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST", "X-Request-ID": None}
    for headers in (asked, {"X-Request-ID": None}):
        said = await contract.ask("OPTIONS", "/payments", caller=None, headers=headers)
        assert (said.status, said.headers["Allow"], said.body) == (204, "OPTIONS, GET, POST", b"")
    assert (await contract.ask("OPTIONS", "/nowhere", caller=None)).status == 204
    # The common port has the routes, and its own health and dialect.
    assert (await contract.ask("GET", "/payments", common=True)).status == 200
    assert (await contract.ask("GET", "/health", common=True)).json["service"] == "tallystick"
    assert (await contract.ask("GET", "/nowhere", common=True)).json["error"]["code"] == "not_found"


async def test_an_order_that_nobody_has_taken_leaves_the_key_free(contract: Contract) -> None:
    asked = contract.order()
    for fault in ("create:decline", "create:busy=1"):
        await contract.simulate("PUT", "/faults", {"rules": [{"fault": fault}]})
        assert error(await contract.ask("POST", "/payments", asked)) == (500, "internal server error")
        await contract.simulate("PUT", "/faults", {})
    payment = (await contract.ask("POST", "/payments", asked)).payment
    assert (payment["status"], payment["checkout_url"] != "") == (2, True)
    assert (await contract.ask("POST", "/payments", asked)).payment == payment


async def test_an_answer_that_was_lost_is_never_failed(contract: Contract) -> None:
    asked = contract.order()
    await contract.simulate("PUT", "/faults", {"rules": [{"fault": "create:error"}]})
    for lost in [(await contract.ask("POST", "/payments", asked)).payment for _ in range(2)]:
        assert (lost["status"], "checkout_url" in lost) == (3, False)
    await contract.simulate("PUT", "/faults", {})
    payment = (await contract.ask("POST", "/payments", asked)).payment
    row = await contract.parts.desk.row_of_hash(1, payment["provider_callback_hash"])
    assert row is not None
    await contract.parts.payments.look_at(row["payment_id"], row["attempt_id"], "reconcile")
    payment = (await contract.ask("POST", "/payments", asked)).payment
    assert (payment["status"], "checkout_url" in payment) == (2, True)


async def test_cancelling_asks_the_provider_and_leaves_closed_payments_alone(contract: Contract) -> None:
    payment = await contract.create()
    path = f"/payments/{payment['id']}"
    for body in (b"[]", b'{"reason": 1}', b"{"):
        assert error(await contract.ask("POST", f"{path}/cancel", body)) == (400, "invalid request")
    canceled, again = [(await contract.ask("POST", f"{path}/cancel")).payment for _ in range(2)]
    assert canceled == again
    assert (canceled["status"], "refundable_cents" in canceled) == (30, False)
    assert (await contract.ask("GET", path)).payment == canceled
    async with contract.session.get(
        f"{contract.simulator}/v1/payments/{payment['provider_payment_id']}"
    ) as shown:
        assert (await shown.json())["standing"] == "canceled"
    # Money that comes after all is money.
    await contract.event(payment)
    assert (await contract.ask("GET", path)).payment["status"] == 10


async def callbacks(contract: Contract, **wanted: Any) -> list[dict[str, Any]]:
    rows = await contract.owner.fetch(
        "SELECT convert_from(e.body, 'UTF8') AS body FROM outbox_events AS e WHERE e.event_type = 'callback'"
        " ORDER BY e.created_at, e.id"
    )
    found = [json.loads(row["body"])["payment"] for row in rows]
    return [one for one in found if wanted.items() <= one.items()]


async def test_the_caller_is_told_of_the_end_by_the_bytes_of_an_answer(contract: Contract) -> None:
    payment = await contract.create()
    assert await callbacks(contract, id=payment["id"]) == []
    await contract.event(payment)
    paid = (await contract.ask("GET", f"/payments/{payment['id']}")).payment
    # This one is noted, and the payment was changed last by it: maybe in another second.
    await contract.event(payment, "checkout.session.expired", status="expired", payment_status="unpaid")
    (body,) = await callbacks(contract, id=payment["id"])
    assert body == paid


async def test_a_failure_is_told_unless_the_answer_to_the_creation_was_one(contract: Contract) -> None:
    for first, late in (("create:decline", False), ("create:error_before", True)):
        asked = contract.order()
        await contract.simulate("PUT", "/faults", {"rules": [{"fault": first}]})
        said = await contract.ask("POST", "/payments", asked)
        await contract.simulate("PUT", "/faults", {"rules": [{"fault": "create:decline"}]})
        if late:
            assert said.payment["status"] == 3
            row = await contract.parts.desk.row_of_hash(1, said.payment["provider_callback_hash"])
            assert row is not None
            await contract.parts.payments.look_at(row["payment_id"], row["attempt_id"], "reconcile")
        await contract.simulate("PUT", "/faults", {})
        told = await callbacks(contract, request_id=asked["request_id"])
        assert [one["status"] for one in told] == [20] * late


async def test_the_call_of_the_page_is_a_call(contract: Contract) -> None:
    found = re.search(r"-d '(\{.*?\})'", PAGE.read_text(), re.DOTALL)
    assert found is not None
    headers = {"X-Request-ID": "req-1001"}
    said = await contract.ask("POST", "/payments", found[1].encode(), headers=headers, common=True)
    assert (said.status, said.payment["request_id"], said.payment["status"]) == (201, "req-1001", 2)


async def test_overload_has_the_contracts_form(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    async def limited(**_asked: Any) -> Any:
        raise RateLimited(a_minute(1, "address"), 0, 1)

    monkeypatch.setattr(contract.parts.guard, "admit", limited)
    for common, path in ((True, "/payments"), (False, "/payments"), (False, "/nowhere")):
        said = await contract.ask("GET", path, common=common)
        assert error(said)[0] == 429, path
        assert int(said.headers["Retry-After"]) > 0
    monkeypatch.undo()

    async def away(*_asked: Any) -> Any:
        raise Unavailable

    monkeypatch.setattr(contract.parts.callers, "authenticate", away)
    said = await contract.ask("GET", "/payments")
    assert (error(said)[0], said.headers["Retry-After"]) == (503, "1")


async def test_bytes_that_are_no_text_are_no_mistake_of_ours(contract: Contract) -> None:
    given = {
        "X-API-Key": (await contract.key("gateway")).encode(),
        "X-Request-ID": b"r",
        "Content-Type": b"application/json",
    }
    body = json.dumps(contract.order(request_id="")).encode()
    for client in (contract.own, contract.common):
        for method, target in (
            ("POST", b"/payments"),
            ("GET", b"/payments"),
            ("POST", b"/webhooks/providers/stripe/x"),
        ):
            for where, headers in spoiled(given, target):
                status, answer = await send(client, method, where, headers, body)
                assert status < 500, (method, where, headers, answer)
