"""Signed is stored: once a signature holds and id and type can be read, nothing else in the body refuses an event."""

import base64
import hashlib
import hmac
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_plus

import pytest

from core.service import Service
from core.settings import Settings
from tests.conftest import ApiClient

pytestmark = pytest.mark.shared

STRIPE, CLOUDPAYMENTS, DEMO, GITHUB = "whsec_stripe", "cp-secret", "demo-secret", "github-secret-of-ours"
BOM = b"\xef\xbb\xbf"
_names = itertools.count(1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "stripe_signing_secrets": (STRIPE,),
            "cloudpayments_api_secrets": (CLOUDPAYMENTS,),
            "paypal_mode": "demo_hmac",
            "demo_hmac_secret": DEMO,
        }
    )


def mac(secret: str, message: bytes) -> bytes:
    return hmac.digest(secret.encode(), message, hashlib.sha256)


def stripe(body: bytes) -> tuple[str, dict[str, str]]:
    now = int(time.time())
    return "stripe", {"Stripe-Signature": f"t={now},v1={mac(STRIPE, b'%d.' % now + body).hex()}"}


def paypal(body: bytes) -> tuple[str, dict[str, str]]:
    return "paypal", {"X-Demo-Signature": mac(DEMO, body).hex()}


def cloudpayments(body: bytes) -> tuple[str, dict[str, str]]:
    return "cloudpayments/pay", {
        "Content-HMAC": base64.b64encode(mac(CLOUDPAYMENTS, body)).decode(),
        "Content-Type": "application/x-www-form-urlencoded; charset=windows-1251",
    }


def github(body: bytes) -> tuple[str, dict[str, str]]:
    return "in/github", {"X-Hub-Signature-256": f"sha256={mac(GITHUB, body).hex()}"}


Sender = Callable[[bytes], tuple[str, dict[str, str]]]
S, P, G = b'{"id":"NAME","type":"a.b"', b'{"id":"NAME","event_type":"A.B"', b'{"id":"NAME","action":"a.b"'
DEEP = b"[" * 5_000 + b"]" * 5_000
STORED: list[tuple[Sender, bytes]] = [
    # JSON of other people's making: a mark before it, bytes of other encodings, halves of characters, odd numbers.
    *((sender, BOM + start + b"}") for sender, start in ((stripe, S), (paypal, P), (github, G))),
    *((sender, start + b',"n":"caf\xe9"}') for sender, start in ((stripe, S), (paypal, P), (github, G))),
    *((sender, start + b',"n":"\\ud83d"}') for sender, start in ((stripe, S), (paypal, P), (github, G))),
    *((sender, start + b',"n":"\x01\t"}') for sender, start in ((stripe, S), (paypal, P), (github, G))),
    *((sender, start + b',"n":[NaN,1e999,' + b"9" * 5_000 + b"]}") for sender, start in ((stripe, S), (paypal, P))),
    *((sender, start + b',"n":' + DEEP + b"}") for sender, start in ((stripe, S), (paypal, P), (github, G))),
    # A field that others need is missing, or is something else.
    (stripe, S + b"}"),
    (stripe, S + b',"created":"soon","data":7,"livemode":"?"}'),
    (stripe, S + b',"created":-5,"data":{"object":[1]}}'),
    (stripe, S + b',"object":"v2.core.event","created":"2026-11-29T17:00:00.000Z","related_object":null}'),
    (paypal, P + b',"resource":[],"create_time":17}'),
    # Forms: of a code page of its own, doubled fields, without values; with JSON in a field.
    (cloudpayments, b"TransactionId=NAME&Name=%C8%E2%E0%ED"),
    (cloudpayments, b"TransactionId=NAME&Name=\xc8\xe2\xe0\xed"),
    (cloudpayments, b"TransactionId=NAME&Name=a&Name=b&flag"),
    (cloudpayments, b"TransactionId=NAME" + b"&a=1" * 500),
    (cloudpayments, BOM + b'{"TransactionId":"NAME","Name":"\\udc00 \xc8"}'),
    (github, b"payload=" + quote_plus(G + b',"zen":"\xc3\xa9 & =","n":"\xff"}').encode()),
    (github, b"id=NAME&action=a.b&note=%ff"),
]  # fmt: skip


async def test_signed_is_stored(
    api: ApiClient, service: Service, api_key: Callable[..., Awaitable[str]]
) -> None:
    registered = await api.post(
        "/v1/webhook-sources",
        json={
            "name": "github", "kind": "hmac", "secret": GITHUB, "event_id": ["/id"], "event_type": "/action",
            "object_id": "/issue/id", "occurred_at": "/at",
            "signature": {"header": "X-Hub-Signature-256", "prefix": "sha256="},
        },
        headers={"Authorization": f"Bearer {await api_key(principal='leniency')}"},
    )  # fmt: skip
    assert registered.status == 201
    for sender, template in STORED:
        name = f"signed-{next(_names)}"
        body = template.replace(b"NAME", name.encode())
        path, headers = sender(body)
        told: Any = None
        for _ in range(2):
            answer = await api.post(f"/webhooks/{path}", data=body, headers=headers)
            told = await answer.json(content_type=None)
            assert answer.status == 200, (path, body[:200], told)
        assert told in ({"code": 0}, {"status": "ok", "message": "duplicate ignored", "event_id": name}), body
        found = await service.database.connections.pool.fetch(
            "SELECT inbox_body(id, body) AS body FROM inbox_events WHERE event_id IN ($1, 'pay:' || $1)", name
        )
        assert [row["body"] for row in found] == [body]


REFUSED: list[tuple[Sender, bytes]] = [
    *((stripe, body) for body in (b"", b"[]", b"{", b"id", S, S.replace(b'"NAME"', b"7") + b"}", b'{"type":"a"}')),
    *((paypal, body) for body in (b"", b"\xff", P, P.replace(b"NAME", b"\\u0000") + b"}", b'{"id":"NAME"}')),
    *((cloudpayments, body) for body in (b"TransactionId", b"TransactionId=1&TransactionId=2", b"TransactionId=%00")),
    *((github, body) for body in (b"nothing", b"payload=%7B%7D", b"id=1&id=2&action=a", G)),
]  # fmt: skip


async def test_a_body_that_names_no_event_is_refused(api: ApiClient) -> None:
    for sender, body in REFUSED:
        path, headers = sender(body)
        answer = await api.post(f"/webhooks/{path}", data=body, headers=headers)
        told = await answer.json(content_type=None)
        if path == "in/github":
            assert answer.status in {400, 404}
            continue
        assert answer.status == 400, (path, body)
        assert told["detail"] in {"Invalid JSON payload", "Missing required fields"}


async def test_a_forged_body_is_read_no_more_than_before(api: ApiClient, service: Service) -> None:
    """PayPal's events are read before their signature: what only a lenient reader can read waits for it."""
    for body in (BOM + P + b"}", P + b',"n":"\xff"}'):
        answer = await api.post("/webhooks/paypal", data=body, headers={"X-Demo-Signature": "0" * 64})
        assert (answer.status, (await answer.json(content_type=None))["detail"]) == (
            400,
            "Invalid JSON payload",
        )


async def test_a_slash_too_many_changes_nothing(api: ApiClient) -> None:
    for path, good, bad in (
        ("stripe", stripe(S + b"}")[1], {"Stripe-Signature": "t=1,v1=0"}),
        ("paypal", paypal(S + b"}")[1], {}),
        ("cloudpayments/pay", {}, {}),
        ("in/nobody", {}, {}),
    ):
        for headers in (good, bad):
            answers = [
                await api.post(
                    f"/webhooks/{path}{slash}", data=S + b"}", headers=headers, allow_redirects=False
                )
                for slash in ("", "/")
            ]
            told = [await answer.json(content_type=None) for answer in answers]
            assert answers[0].status == answers[1].status != 307
            assert [one["detail"] for one in told if "detail" in one] in ([], [told[0].get("detail")] * 2)
