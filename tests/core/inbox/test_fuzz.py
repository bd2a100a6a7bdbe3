"""Whatever comes to a verifier, it answers with an event that can be stored or with a refusal of the sender's fault.

The bodies are mostly signed as they are, so that the readers behind the signatures meet them, too. `make fuzz` tries
100,000 for each provider, beside what hypothesis finds.
"""

import base64
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

from core.errors import Refusal
from core.inbox.cloudpayments import KINDS, CloudPaymentsVerifier
from core.inbox.intake import NewEvent
from core.inbox.paypal.certificates import Certificates
from core.inbox.paypal.client import Client
from core.inbox.paypal.transmissions import DemoVerifier, OfflineVerifier
from core.inbox.plain_hmac import Scheme
from core.inbox.source_verifiers import SourceVerifier
from core.inbox.sources import Options
from core.inbox.stripe import StripeVerifier
from core.inbox.verifying import MAX_TEXT_BYTES, NotGenuine, Verifier
from handlers.http.problems import PROBLEMS
from tests.core.inbox import forgeries
from tests.core.inbox.authority import SANDBOX_SIGNER, authority, leaf, rsa_key
from tests.core.inbox.forgeries import Headers
from tests.core.inbox.paypal_server import WEBHOOK_ID, PayPal

LONG = search_settings.get_current_profile_name() == "fuzz"
VOLUME = 100_000 if LONG else 500
SEARCH = (
    search_settings.get_profile("fuzz")
    if LONG
    else search_settings(
        max_examples=50,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
)

NOW = 1_795_276_800
SECRET = "a-secret-of-ours-long-enough"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = (
    "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
)
PAYPAL = PayPal(
    authority("Root"),
    leaf(authority("Middle"), SANDBOX_SIGNER, key=rsa_key()),
    {},
    host="api.sandbox.paypal.com",
)


class KnownKey(Certificates):
    """Addresses are judged, and then not asked."""

    async def key_at(self, url: str, now: float) -> RSAPublicKey:
        key = PAYPAL.signer.certificate.public_key()
        assert isinstance(key, RSAPublicKey)
        return key


CERTIFICATES = KnownKey(Client(), hosts=[PAYPAL.host], sandbox=True)

STRIPE_EVENT: dict[str, Any] = {
    "id": "evt_1", "type": "a.b", "created": NOW, "data": {"object": {"id": "pi_1"}}, "object": "event",
}  # fmt: skip
PAYPAL_EVENT: dict[str, Any] = {
    "id": "WH-1", "event_type": "A.B", "create_time": "2026-11-21T16:00:00Z", "event_version": "1.0",
    "resource": {"id": "R", "supplementary_data": {"related_ids": {"order_id": "O"}}},
}  # fmt: skip
CLOUDPAYMENTS_FIELDS: dict[str, Any] = {
    "TransactionId": 17, "PaymentTransactionId": 16, "Id": "sc_1", "Amount": "10.00", "Currency": "KZT",
    "AccountId": "customer:17", "DateTime": "2026-11-21 16:00:00", "Name": "a b&c=d+e%20",
}  # fmt: skip
SOURCE_EVENT: dict[str, Any] = {
    "id": 5,
    "type": "a.b",
    "data": {"id": "x"},
    "at": "2026-11-21",
    "list": [{"n": 1}],
}
HEX = Options(
    signature=Scheme("X-Sign", prefix="sha256="),
    event_id=("/id", "header:X-Id"),
    object_id="/list/0/n",
    occurred_at="/at",
)
BASE64 = Options(
    signature=Scheme("X-Sign", encoding="base64"),
    event_id=("header:X-Id",),
    event_type="header:X-Type",
    object_id="/data/id",
    occurred_at="header:X-At",
)

# A verifier, a body, and the headers that are honest for it.
Case = tuple[Verifier, bytes, Headers]
# What makes one that is sent at a time in Unix seconds.
Maker = Callable[[Random, int], Case]


def mac(message: bytes, secret: bytes = SECRET.encode()) -> bytes:
    return hmac.digest(secret, message, "sha256")


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def stripe(random: Random, now: int) -> Case:
    body = forgeries.body(random, STRIPE_EVENT)
    signature = mac(b"%d." % now + body).hex()
    return StripeVerifier(["other", SECRET], 300), body, {"stripe-signature": f"t={now},v1={signature}"}


def paypal(random: Random, now: int) -> Case:
    body = forgeries.body(random, PAYPAL_EVENT)
    sent_at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sent = PAYPAL.headers(body, id="t-1", time=sent_at)
    honest = {name.lower(): value for name, value in sent.items()}
    return OfflineVerifier(WEBHOOK_ID, CERTIFICATES), body, honest


def paypal_demo(random: Random, _now: int) -> Case:
    body = forgeries.body(random, PAYPAL_EVENT)
    return DemoVerifier(SECRET), body, {"x-demo-signature": mac(body).hex()}


def cloudpayments(random: Random, _now: int) -> Case:
    form = urlencode(CLOUDPAYMENTS_FIELDS).encode()
    body = (
        forgeries.bent(random, form) if random.randrange(2) else forgeries.body(random, CLOUDPAYMENTS_FIELDS)
    )
    verifier = CloudPaymentsVerifier(["other", SECRET], random.choice(KINDS))
    return verifier, body, {"content-hmac": encoded(mac(body))}


def standard_webhooks(random: Random, now: int) -> Case:
    body = forgeries.body(random, SOURCE_EVENT)
    content = f"msg_1.{now}.".encode() + body
    options = Options(object_id="/data/id", occurred_at="/at")
    honest = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    if random.randrange(2):
        honest["webhook-signature"] = f"v1a,{encoded(PRIVATE.sign(content))}"
        return SourceVerifier("s", "standard_ed25519", options, [PUBLIC]), body, honest
    key = base64.b64decode(STANDARD.removeprefix("whsec_"))
    honest["webhook-signature"] = f"v1,{encoded(mac(content, key))}"
    return SourceVerifier("s", "standard", options, [STANDARD]), body, honest


def plain_hmac(random: Random, now: int) -> Case:
    body = forgeries.body(random, SOURCE_EVENT)
    options = random.choice((HEX, BASE64))
    signature = f"sha256={mac(body).hex()}" if options is HEX else encoded(mac(body))
    honest = {"x-sign": signature, "x-id": "e-1", "x-type": "a.b", "x-at": str(now)}
    return SourceVerifier("s", "hmac", options, [SECRET]), body, honest


CASES: list[Maker] = [
    stripe, paypal, paypal_demo, cloudpayments, standard_webhooks, plain_hmac,
]  # fmt: skip


def outcome(verifier: Verifier, body: bytes, headers: Headers) -> NewEvent | Refusal:
    """Ask the verifier; none of those here has anything to wait for."""
    question = verifier.verify(body, headers, NOW)
    try:
        question.send(None)
    except StopIteration as done:
        event: NewEvent = done.value
        return event
    except Refusal as refusal:
        return refusal
    raise AssertionError("it waited")


def judge(random: Random, case: Maker) -> bool:
    """Hold what every answer must be, and that nothing honest is called a forgery; say whether it was taken in."""
    verifier, body, honest = case(random, NOW)
    headers = forgeries.headers(random, honest)
    found = outcome(verifier, body, headers)
    if isinstance(found, Refusal):
        assert PROBLEMS[found.code].status < 500
        assert headers != honest or not isinstance(found, NotGenuine)
        return False
    assert (found.provider, found.body) == (verifier.provider, body)
    for text in (found.event_id, found.event_type, found.object_id or "x"):
        assert 1 <= len(text.encode()) <= MAX_TEXT_BYTES
        assert "\0" not in text
    msgspec.json.encode(found.headers)
    assert found.occurred_at is None or found.occurred_at.utcoffset() is not None
    return True


@pytest.mark.parametrize("case", CASES)
@SEARCH
@given(random=st.randoms(use_true_random=False))
def test_every_answer_is_an_event_or_the_senders_fault(case: Maker, random: Random) -> None:
    judge(random, case)


@pytest.mark.parametrize("case", CASES)
def test_a_great_many(case: Maker) -> None:
    random = Random(f"{case.__name__}") if not LONG else Random()
    taken = sum(judge(random, case) for _ in range(VOLUME))
    # Neither is everything refused, nor is everything believed.
    assert VOLUME / 10 < taken < VOLUME * 9 / 10
