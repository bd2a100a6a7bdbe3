"""Webhooks of PayPal and CloudPayments as they see us: answers, refusals, and what is stored when they answer."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.outbox.signing import Signer, new_secret
from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from ops.embedded import EmbeddedServers
from tests.conftest import ApiClient
from tests.core.inbox.authority import SANDBOX_SIGNER, authority, leaf, rsa_key
from tests.core.inbox.paypal_server import WEBHOOK_ID, PayPal, running

ApiKey = Callable[..., Awaitable[str]]
SECRET = "cp-secret"
SIGNED_AS_NONE = {"detail": "Invalid signature", "code": "invalid_signature"}


@pytest.fixture
async def paypal(tmp_path: Path) -> AsyncIterator[PayPal]:
    async with running(tmp_path) as server:
        yield server


@pytest.fixture
def settings(settings: Settings, paypal: PayPal, tmp_path: Path) -> Settings:
    return settings.model_copy(
        update={
            "cloudpayments_api_secrets": ("cp-new-secret", SECRET),
            "paypal_webhook_id": WEBHOOK_ID,
            "paypal_cert_hosts": (paypal.host,),
            "paypal_roots_file": str(tmp_path / "roots.pem"),
            "paypal_api_base": f"https://{paypal.host}",
            "paypal_client_id": "client",
            "paypal_client_secret": "secret",
            "max_request_size": 100_000,
        }
    )


async def stored(service: Service) -> list[Any]:
    return list(
        await service.database.connections.pool.fetch(
            "SELECT *, inbox_body(id, body) AS body FROM inbox_events ORDER BY event_id"
        )
    )


def event(event_id: str = "WH-1", **changes: Any) -> bytes:
    return json.dumps(
        {
            "id": event_id,
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "create_time": "2026-11-21T16:00:00Z",
            "resource": {"id": "C-1", "supplementary_data": {"related_ids": {"order_id": "O-1"}}},
        }
        | changes
    ).encode()


async def post(api: ApiClient, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    answer = await api.post(path, data=body, headers=headers)
    found = await answer.json(content_type=None)
    if answer.status == 200:
        return 200, found
    return answer.status, {"detail": found["detail"], "code": found["error"]["code"]}


async def test_paypal_first_and_second_time(api: ApiClient, service: Service, paypal: PayPal) -> None:
    body = event()
    headers = paypal.headers(body)
    assert await post(api, "/webhooks/paypal", body, headers) == (
        200,
        {"status": "ok", "message": "received", "event_id": "WH-1"},
    )
    # The same transmission, and another one of the same event.
    for again in (headers, paypal.headers(body)):
        assert await post(api, "/webhooks/paypal", body, again) == (
            200,
            {"status": "ok", "message": "duplicate ignored", "event_id": "WH-1"},
        )
    (row,) = await stored(service)
    assert (row["provider"], row["event_type"], row["object_id"], row["body"]) == (
        "paypal",
        "PAYMENT.CAPTURE.COMPLETED",
        "O-1",
        body,
    )
    assert json.loads(row["headers"]) == {name.lower(): value for name, value in headers.items()}
    assert paypal.asked == ["CERT-1"]


async def test_one_transmission_tells_of_one_event(api: ApiClient, service: Service, paypal: PayPal) -> None:
    """A CRC-32 can be forged: under the signature of one event, another would pass as genuine."""
    headers = [paypal.headers(event(name), id="one-transmission") for name in ("WH-1", "WH-2")]
    assert (await post(api, "/webhooks/paypal", event("WH-1"), headers[0]))[1]["message"] == "received"
    assert (await post(api, "/webhooks/paypal", event("WH-2"), headers[1]))[1][
        "message"
    ] == "duplicate ignored"
    assert [row["event_id"] for row in await stored(service)] == ["WH-1"]


async def test_paypals_events_at_once(api: ApiClient, service: Service, paypal: PayPal) -> None:
    bodies = [event(f"WH-{number % 5}") for number in range(50)]
    answers = await asyncio.gather(
        *(post(api, "/webhooks/paypal", body, paypal.headers(body)) for body in bodies)
    )
    messages = [answer["message"] for _, answer in answers]
    assert (messages.count("received"), messages.count("duplicate ignored")) == (5, 45)
    assert len(await stored(service)) == 5
    assert paypal.asked == ["CERT-1"]


async def test_what_paypal_did_not_sign_leaves_nothing(
    api: ApiClient, service: Service, paypal: PayPal
) -> None:
    body = event()
    forger = leaf(authority("Root"), SANDBOX_SIGNER, key=rsa_key("forger"))
    paypal.files["CERT-FORGED"] = forger.pem
    good = paypal.headers(body)
    for headers in (
        {},
        {name: value for name, value in good.items() if name != "PAYPAL-CERT-URL"},
        paypal.headers(body + b" "),
        paypal.headers(body, webhook_id="another"),
        paypal.headers(body, time="2020-01-01T00:00:00Z"),
        paypal.headers(body, time="2090-01-01T00:00:00Z"),
        paypal.headers(body, url=paypal.url("CERT-MISSING")),
        paypal.headers(body, url="https://127.0.0.1:1/v1/notifications/certs/CERT-1"),
        paypal.headers(body, url=paypal.url("CERT-FORGED"), signer=forger),
        paypal.headers(body, signer=forger),
        good | {"PAYPAL-AUTH-ALGO": "SHA1withRSA"},
        good | {"PAYPAL-TRANSMISSION-SIG": "é" * 344},
    ):
        assert await post(api, "/webhooks/paypal", body, headers) == (400, SIGNED_AS_NONE)
    assert await stored(service) == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Invalid JSON payload"),
        (b"[1]", "Invalid JSON payload"),
        (b"\xff", "Invalid JSON payload"),
        (event("x" * 300), "Invalid JSON payload"),
        (event(""), "Missing required fields"),
        (event(event_type=""), "Missing required fields"),
    ],
)
async def test_not_an_event_of_paypal(api: ApiClient, service: Service, body: bytes, detail: str) -> None:
    status, answer = await post(api, "/webhooks/paypal", body, {})
    assert (status, answer["detail"]) == (400, detail)
    assert await stored(service) == []


async def test_paypals_own_verification(settings: Settings, service: Service, paypal: PayPal) -> None:
    chosen = settings.model_copy(update={"paypal_verify": "api"})
    async with TestClient(TestServer(create_app(chosen, replace(service, settings=chosen)))) as api:
        body = event(note="é ☃ 1.50")
        headers = paypal.headers(body)
        assert (await post(api, "/webhooks/paypal", body, headers))[0] == 200
        assert paypal.questions[0] == {
            "auth_algo": "SHA256withRSA",
            "cert_url": paypal.url(),
            "transmission_id": headers["PAYPAL-TRANSMISSION-ID"],
            "transmission_sig": headers["PAYPAL-TRANSMISSION-SIG"],
            "transmission_time": headers["PAYPAL-TRANSMISSION-TIME"],
            "webhook_id": WEBHOOK_ID,
            "webhook_event": json.loads(body),
        }
        # One token serves all, and a new one is got when it is revoked.
        paypal.answer = "FAILURE"
        assert await post(api, "/webhooks/paypal", event("WH-2"), paypal.headers(event("WH-2"))) == (
            400,
            SIGNED_AS_NONE,
        )
        assert paypal.tokens == 1
        paypal.tokens, paypal.answer = 7, "SUCCESS"
        assert (await post(api, "/webhooks/paypal", event("WH-3"), paypal.headers(event("WH-3"))))[0] == 200
        assert paypal.tokens == 8
        # What cannot be genuine is not asked about.
        assert await post(api, "/webhooks/paypal", body, {}) == (400, SIGNED_AS_NONE)
        assert len(paypal.questions) == 3
    assert [row["event_id"] for row in await stored(service)] == ["WH-1", "WH-3"]


async def test_without_a_token_everything_is_refused(
    settings: Settings, service: Service, paypal: PayPal
) -> None:
    for changes in ({"paypal_client_secret": "wrong"}, {"paypal_client_id": ""}):
        chosen = settings.model_copy(update={"paypal_verify": "api"} | changes)
        async with TestClient(TestServer(create_app(chosen, replace(service, settings=chosen)))) as api:
            assert await post(api, "/webhooks/paypal", event(), paypal.headers(event())) == (
                400,
                SIGNED_AS_NONE,
            )


async def test_demo_mode(settings: Settings, service: Service) -> None:
    chosen = settings.model_copy(update={"paypal_mode": "demo_hmac", "demo_hmac_secret": "demo"})
    body = event()
    signature = hmac.new(b"demo", body, hashlib.sha256).hexdigest()
    async with TestClient(TestServer(create_app(chosen, replace(service, settings=chosen)))) as api:
        assert (await post(api, "/webhooks/paypal", body, {"X-Demo-Signature": signature}))[0] == 200
        assert await post(api, "/webhooks/paypal", body, {"X-Demo-Signature": "0" * 64}) == (
            400,
            SIGNED_AS_NONE,
        )


def form(**changes: str) -> bytes:
    fields = {"TransactionId": "1", "Amount": "150.00", "Currency": "KZT", "AccountId": "customer:17"}
    return urlencode(fields | changes).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    def sign(message: bytes) -> str:
        return base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()

    return {"Content-HMAC": sign(body), "X-Content-HMAC": sign(unquote_plus(body.decode()).encode())}


KINDS = ("pay", "fail", "confirm", "refund", "cancel", "receipt")


async def test_every_kind_of_cloudpayments_is_stored_once(api: ApiClient, service: Service) -> None:
    body = form(Data='{"note": "a b&c"}')
    for kind in KINDS:
        for _ in range(2):
            path = f"/webhooks/cloudpayments/{kind}"
            assert await post(api, path, body, signed(body)) == (200, {"code": 0})
    plan = urlencode({"Id": "sc_1", "Status": "Active"}).encode()
    assert await post(api, "/webhooks/cloudpayments/recurrent", plan, signed(plan)) == (200, {"code": 0})
    rows = await stored(service)
    assert [row["event_type"] for row in rows] == sorted((*KINDS, "recurrent"))
    assert {row["provider"] for row in rows} == {"cloudpayments"}
    assert rows[0]["body"] == body


async def test_cloudpayments_as_json_and_under_a_new_secret(api: ApiClient, service: Service) -> None:
    body = json.dumps({"TransactionId": 5, "Amount": 10.5}).encode()
    headers = signed(body, "cp-new-secret") | {"Content-Type": "application/json"}
    assert await post(api, "/webhooks/cloudpayments/pay", body, headers) == (200, {"code": 0})
    assert [row["event_id"] for row in await stored(service)] == ["pay:5"]


async def test_what_cloudpayments_did_not_sign_leaves_nothing(api: ApiClient, service: Service) -> None:
    body = form()
    for path in ("/webhooks/cloudpayments/pay", "/webhooks/cloudpayments/check"):
        for headers in ({}, signed(b"a=b"), signed(body, "stranger"), {"Content-HMAC": "é"}):
            assert await post(api, path, body, headers) == (400, SIGNED_AS_NONE)
    bad = b"TransactionId=1&TransactionId=2"
    status, answer = await post(api, "/webhooks/cloudpayments/pay", bad, signed(bad))
    assert (status, answer["detail"]) == (400, "Invalid JSON payload")
    status, answer = await post(api, "/webhooks/cloudpayments/nothing", body, signed(body))
    assert (status, answer["code"]) == (400, "invalid_request")
    assert await stored(service) == []


async def test_check_is_answered_at_once(api: ApiClient, service: Service, api_key: ApiKey) -> None:
    key = {"Authorization": f"Bearer {await api_key()}"}
    for code in ("customer:17", "customer:frozen"):
        opened = await api.post("/v1/accounts", json={"code": code, "currency": "KZT"}, headers=key)
        assert opened.status == 201
    frozen = await api.patch("/v1/accounts/customer:frozen", json={"state": "frozen"}, headers=key)
    assert frozen.status == 200

    async def code_for(**changes: str) -> int:
        body = form(**changes)
        status, answer = await post(api, "/webhooks/cloudpayments/check", body, signed(body))
        assert status == 200
        found: int = answer["code"]
        return found

    assert await code_for() == 0
    assert await code_for(AccountId="customer:18") == 11
    assert await code_for(AccountId="") == 11
    assert await code_for(AccountId="x" * 200) == 11
    assert await code_for(AccountId="a\x00b") == 11
    assert await code_for(Currency="USD") == 12
    for amount in ("0", "-1", "NaN", "Infinity", "1e400000", "", "ten"):
        assert await code_for(Amount=amount) == (0 if amount == "1e400000" else 12), amount
    assert await code_for(AccountId="customer:frozen") == 13
    assert await stored(service) == []


async def test_check_says_no_when_it_cannot_know(
    api: ApiClient, servers: EmbeddedServers, eventually: Callable[..., Awaitable[Any]]
) -> None:
    body = form()
    await asyncio.to_thread(servers.postgres.stop)
    try:
        answer = await post(api, "/webhooks/cloudpayments/check", body, signed(body))
        assert answer == (200, {"code": 13})
        # A notification is not acknowledged, and comes again.
        status, told = await post(api, "/webhooks/cloudpayments/pay", body, signed(body))
        assert (status, told["detail"]) == (503, "Processing failed")
    finally:
        await asyncio.to_thread(servers.postgres.start)

    async def comes_again() -> bool:
        return await post(api, "/webhooks/cloudpayments/pay", body, signed(body)) == (200, {"code": 0})

    await eventually(comes_again)


@pytest.mark.parametrize(("env", "status"), [("dev", 200), ("prod", 400)])
async def test_the_simulator_is_believed_in_development_alone(
    settings: Settings, service: Service, env: str, status: int
) -> None:
    secret = new_secret()
    chosen = settings.model_copy(update={"env": env, "simulator_webhook_secret": secret})
    body = json.dumps({"type": "payment.paid", "data": {"id": "sim_1"}}).encode()
    async with TestClient(TestServer(create_app(chosen, replace(service, settings=chosen)))) as api:
        for key, expected in ((secret, status), (new_secret(), 400)):
            headers = Signer([key]).headers(
                identity="evt_1",
                event_type="",
                delivery_id=uuid.uuid4(),
                body=body,
                timestamp=int(time.time()),
            )
            assert (await post(api, "/webhooks/simulator", body, headers))[0] == expected
    rows = [(row["provider"], row["event_id"], row["object_id"]) for row in await stored(service)]
    assert rows == ([("simulator", "evt_1", "sim_1")] if env == "dev" else [])


async def test_bounds_of_the_body_are_told_in_the_words_of_the_contract(api: ApiClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    for path in ("/webhooks/stripe", "/webhooks/paypal", "/webhooks/cloudpayments/pay", "/webhooks/in/shop"):
        for data in (b"x" * 100_001, chunks()):
            answer = await api.post(path, data=data)
            assert answer.status == 413
            told = await answer.json(content_type=None)
            assert told["detail"] == "Request body too large. Maximum size: 100000 bytes"


async def test_signatures_are_counted(api: ApiClient, paypal: PayPal) -> None:
    body = event()
    await post(api, "/webhooks/paypal", body, paypal.headers(body))
    await post(api, "/webhooks/paypal", body, {})
    await post(api, "/webhooks/cloudpayments/pay", form(), {})
    text = await (await api.get("/metrics")).text()
    assert 'webhook_signature_validations_total{provider="paypal",result="valid",valid="true"}' in text
    assert (
        'webhook_signature_validations_total{provider="cloudpayments",result="invalid",valid="false"}' in text
    )
    assert 'webhook_events_total{event_type="webhook",provider="paypal",status="processed"}' in text
