"""PayPal's signature: its published examples, what is signed, the window of time, hostile headers, the demo mode."""

import base64
import hashlib
import hmac
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from core.errors import Refusal
from core.inbox.paypal.certificates import Certificates, read_chain
from core.inbox.paypal.client import Client
from core.inbox.paypal.transmissions import (
    MAX_AGE_SECONDS,
    MAX_AHEAD_SECONDS,
    DemoVerifier,
    OfflineVerifier,
    read_event,
    read_transmission,
)
from core.inbox.verifying import NotGenuine

SIGNED, UNSIGNED = json.loads(Path(__file__).with_name("paypal_examples.json").read_text())
# 2017-03-30T20:04:05Z, when the signed example was sent.
SENT_AT = 1490904245.0
HEADERS = {
    "paypal-transmission-id": SIGNED["transmission_id"],
    "paypal-transmission-time": SIGNED["transmission_time"],
    "paypal-transmission-sig": SIGNED["signature"],
    "paypal-cert-url": "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77",
    "paypal-auth-algo": "SHA256withRSA",
}
BODY = SIGNED["body"].encode()


class KnownKey(Certificates):
    """The example's own key, whose certificate has long expired."""

    async def key_at(self, url: str, now: float) -> RSAPublicKey:
        key = x509.load_pem_x509_certificate(SIGNED["certificate"].encode()).public_key()
        assert isinstance(key, RSAPublicKey)
        return key


def verifier(
    webhook_id: str = SIGNED["webhook_id"], hosts: Collection[str] = ("api.sandbox.paypal.com",)
) -> OfflineVerifier:
    return OfflineVerifier(webhook_id, KnownKey(Client(), hosts=hosts, sandbox=True))


async def reason(headers: dict[str, str], **more: Any) -> str:
    arguments = {"body": BODY, "now": SENT_AT, "checks": verifier()} | more
    with pytest.raises(NotGenuine) as refused:
        await arguments["checks"].verify(arguments["body"], headers, arguments["now"])
    return refused.value.reason


@pytest.mark.parametrize("example", [SIGNED, UNSIGNED])
def test_checksums_of_the_published_examples(example: dict[str, Any]) -> None:
    headers = HEADERS | {
        "paypal-transmission-id": example["transmission_id"],
        "paypal-transmission-time": example["transmission_time"],
    }
    transmission = read_transmission(headers, SENT_AT if example is SIGNED else 1431963913.0)
    assert transmission.signed(example["webhook_id"], example["body"].encode()).decode() == (
        f"{example['transmission_id']}|{example['transmission_time']}|{example['webhook_id']}|{example['crc32']}"
    )
    assert read_event(example["body"].encode(), headers).event_type in {
        "BILLING.PLAN.CREATED",
        "PAYMENT.SALE.COMPLETED",
    }


async def test_signature_of_the_published_example() -> None:
    receipt = await verifier().verify(BODY, HEADERS, SENT_AT)
    assert (receipt.provider, receipt.event_id) == ("paypal", "WH-2MW4820926242972J-6SG447389E205703U")
    assert (receipt.event_type, receipt.object_id) == ("BILLING.PLAN.CREATED", "P-2U911356NH683973BEDIWKUY")
    assert receipt.occurred_at is not None
    assert receipt.occurred_at.isoformat() == "2017-03-30T20:04:05.613000+00:00"
    assert receipt.headers == HEADERS
    assert receipt.body is BODY


async def test_the_example_is_no_good_for_another_webhook_or_body() -> None:
    assert await reason(HEADERS, checks=verifier("4JH86294D6297924G")) == "signature_mismatch"
    assert await reason(HEADERS, checks=verifier("")) == "webhook_id_missing"
    assert await reason(HEADERS, body=BODY.replace(b'"value":"1"', b'"value":"2"')) == "signature_mismatch"
    assert await reason(HEADERS, body=UNSIGNED["body"].encode()) == "signature_mismatch"


@pytest.mark.parametrize("away", [-MAX_AHEAD_SECONDS, 0, MAX_AGE_SECONDS])
async def test_the_window_of_time_includes_its_ends(away: int) -> None:
    assert (await verifier().verify(BODY, HEADERS, SENT_AT + away)).event_id.startswith("WH-")


@pytest.mark.parametrize("away", [-MAX_AHEAD_SECONDS - 1, MAX_AGE_SECONDS + 1, 10**9])
async def test_outside_of_the_window(away: int) -> None:
    assert await reason(HEADERS, now=SENT_AT + away) == "timestamp_outside_tolerance"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[(name, "", "header_missing") for name in HEADERS],
        ("paypal-auth-algo", "SHA1withRSA", "algorithm"),
        ("paypal-auth-algo", "sha256withrsa", "algorithm"),
        ("paypal-auth-algo", "none", "algorithm"),
        ("paypal-transmission-id", "a|b", "header_malformed"),
        ("paypal-transmission-id", "x" * 65, "header_malformed"),
        ("paypal-transmission-id", "\udcff", "header_malformed"),
        ("paypal-transmission-time", "2017-03-30T20:04:05", "header_malformed"),
        ("paypal-transmission-time", "2017-03-30 20:04:05Z", "header_malformed"),
        ("paypal-transmission-time", "2017-13-30T20:04:05Z", "header_malformed"),
        ("paypal-transmission-time", "0001-01-01T00:00:00+14:00", "header_malformed"),
        ("paypal-transmission-time", "2017-03-30T20:04:05Z|x", "header_malformed"),
        ("paypal-transmission-time", "1490904245", "header_malformed"),
        ("paypal-transmission-sig", "!" * 344, "header_malformed"),
        ("paypal-transmission-sig", "A" * 345, "header_malformed"),
        ("paypal-transmission-sig", "A" * 4000, "header_malformed"),
        ("paypal-transmission-sig", "é" * 344, "header_malformed"),
        ("paypal-transmission-sig", base64.b64encode(bytes(256)).decode(), "signature_mismatch"),
        ("paypal-transmission-sig", base64.b64encode(bytes(100)).decode(), "signature_mismatch"),
    ],
)
async def test_hostile_headers(name: str, value: str, expected: str) -> None:
    assert await reason(HEADERS | {name: value}) == expected


HERE = "https://api.sandbox.paypal.com/v1/notifications/certs/"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://user:password@api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com:/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com./v1/notifications/certs/CERT-1",
        "https://API.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://127.0.0.1/v1/notifications/certs/CERT-1",
        "https://[::1]/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com/v1/notifications/test",
        "https://api.sandbox.paypal.com/v1/notifications/certs/",
        HERE + "../../payments",
        HERE + "..",
        HERE + ".hidden",
        HERE + "%2e%2e/x",
        HERE + "CERT-1?x=1",
        HERE + "CERT-1#x",
        HERE + "CERT-1/x",
        HERE + "CERT-1\\x",
        HERE + "CERT-1\n",
        HERE + "CERT é",
        HERE + "\udcff",
        HERE + "x" * 600,
        "//api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "file:///etc/passwd",
        "https:/api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    ],
)
async def test_addresses_that_are_not_asked(url: str) -> None:
    assert await reason(HEADERS | {"paypal-cert-url": url}) == "certificate_url"


async def test_the_usual_port_may_be_said() -> None:
    url = HEADERS["paypal-cert-url"].replace(".com/", ".com:443/")
    assert await verifier().verify(BODY, HEADERS | {"paypal-cert-url": url}, SENT_AT)


@pytest.mark.parametrize(
    ("sandbox", "now", "expected"),
    [
        # Its name is that of the sandbox.
        (False, SENT_AT, "certificate_name"),
        # Its intermediate is not in the bundle, and it has expired.
        (True, SENT_AT, "certificate_untrusted"),
        (True, SENT_AT + 10**9, "certificate_untrusted"),
    ],
)
def test_paypals_own_certificate_alone(sandbox: bool, now: float, expected: str) -> None:  # noqa: FBT001
    with pytest.raises(NotGenuine) as refused:
        read_chain(SIGNED["certificate"].encode(), Client().store, now=now, sandbox=sandbox)
    assert refused.value.reason == expected


def event(**changes: Any) -> bytes:
    fields = {"id": "WH-1", "event_type": "A.B", "resource": {"id": "R"}, "create_time": "x"} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"[]", "malformed_json"),
        (b"5", "malformed_json"),
        (b"\xff", "malformed_json"),
        (event(id=...), "malformed_json"),
        (event(event_type=...), "malformed_json"),
        (event(id=5), "malformed_json"),
        (event(id="x" * 256), "malformed_json"),
        (event(event_type="é" * 200), "malformed_json"),
        (event(id="a\x00"), "malformed_json"),
        (event(id="\ud800"), "malformed_json"),
        (b"[" * 200_000, "malformed_json"),
        (event(id=""), "invalid_request"),
        (event(event_type=""), "invalid_request"),
    ],
)
async def test_what_is_no_event_is_told_before_the_signature(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        await verifier().verify(body, {}, SENT_AT)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("resource", "object_id"),
    [
        ({"id": "R", "supplementary_data": {"related_ids": {"order_id": "O"}}}, "O"),
        ({"id": "R", "supplementary_data": {"related_ids": []}}, "R"),
        ({"id": "R", "supplementary_data": 5}, "R"),
        ({"id": 5}, None),
        ({}, None),
    ],
)
def test_the_order_is_the_object(resource: dict[str, Any], object_id: str | None) -> None:
    assert read_event(event(resource=resource), {}).object_id == object_id


async def test_demo_mode() -> None:
    body = event()
    good = hmac.new(b"demo", body, hashlib.sha256).hexdigest()
    assert (await DemoVerifier("demo").verify(body, {"x-demo-signature": good}, 0)).event_id == "WH-1"
    for secret, header in (
        ("demo", ""),
        ("demo", good.upper()),
        ("demo", good[:-1]),
        ("demo", "é" * 64),
        ("demo", "0" * 64),
        ("", hmac.new(b"", body, hashlib.sha256).hexdigest()),
    ):
        assert await reason({"x-demo-signature": header}, body=body, checks=DemoVerifier(secret))
