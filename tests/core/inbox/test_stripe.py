"""Stripe's signature and body: reference vectors, Stripe's own library as the signer, and hostile headers."""

import codecs
import hashlib
import hmac
import json
import random
import time
from typing import Any

import pytest
import stripe

from core.errors import Refusal
from core.inbox.stripe import MAX_HEADER_LENGTH, MAX_SIGNATURES, Genuine, Refused, Verdict, read_event, verify

SECRET = "whsec_test_secret"
BODY = b'{"id":"evt_1","object":"event"}'
SIGNED_AT = 1492774577
VECTOR = "654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543"
NOT_IT = "0" * 64


def check(
    header: str, *, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), now: float = SIGNED_AT
) -> Verdict:
    return verify(body, header, secrets=secrets, tolerance_seconds=300, now=now)


def signature(body: bytes, secret: str = SECRET, timestamp: int | str = SIGNED_AT) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def test_reference_vector() -> None:
    assert signature(BODY) == VECTOR
    assert check(f"t={SIGNED_AT},v1={VECTOR}") == Genuine(SIGNED_AT, 0)


@pytest.mark.parametrize("body", ["{}", '{"a":"é😀"}', "not json", "", '{"a":"' + "x" * 100_000 + '"}'])
def test_headers_of_stripes_own_library(body: str) -> None:
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET, SIGNED_AT)
    assert check(header, body=body.encode()) == Genuine(SIGNED_AT, 0)


def test_what_we_accept_stripes_library_accepts() -> None:
    now = int(time.time())
    header = f"t={now},v1={NOT_IT},v0={NOT_IT},v1={signature(BODY, timestamp=now)}"
    assert isinstance(check(header, now=now), Genuine)
    assert stripe.WebhookSignature.verify_header(BODY.decode(), header, SECRET, 300)


def test_every_secret_is_tried_with_every_signature() -> None:
    old, new = signature(BODY, "whsec_old"), signature(BODY, "whsec_new")
    secrets = ("whsec_new", "whsec_old")
    assert check(f"t={SIGNED_AT},v1={old},v1={new}", secrets=secrets) == Genuine(SIGNED_AT, 0)
    assert check(f"t={SIGNED_AT},v1={NOT_IT},v1={old}", secrets=secrets) == Genuine(SIGNED_AT, 1)
    assert check(f"t={SIGNED_AT},v1={old}", secrets=("whsec_new",)) == Refused("signature_mismatch")


@pytest.mark.parametrize("away", [-300, -1, 0, 1, 300])
def test_tolerance_holds_both_ways_and_includes_its_boundary(away: int) -> None:
    assert isinstance(check(f"t={SIGNED_AT},v1={VECTOR}", now=SIGNED_AT + away), Genuine)


@pytest.mark.parametrize("away", [-301, 301, -(10**9), 10**9])
def test_outside_of_the_tolerance(away: int) -> None:
    assert check(f"t={SIGNED_AT},v1={VECTOR}", now=SIGNED_AT + away) == Refused("timestamp_outside_tolerance")


@pytest.mark.parametrize(
    "header",
    [
        f"t={SIGNED_AT}, v1={VECTOR}",
        f"t={SIGNED_AT},\t v1={VECTOR}",
        f"v1={VECTOR},t={SIGNED_AT}",
        f"t={SIGNED_AT},v1={VECTOR},v0={NOT_IT}",
        f"t={SIGNED_AT},v2=anything/at+all=,v1={VECTOR}",
        f"t={SIGNED_AT},v1={VECTOR},t={SIGNED_AT},v1={VECTOR}",
        f"t={SIGNED_AT}" + f",v1={NOT_IT}" * (MAX_SIGNATURES - 1) + f",v1={VECTOR}",
    ],
)
def test_spellings_that_mean_the_same(header: str) -> None:
    assert check(header) == Genuine(SIGNED_AT, 0)


HOSTILE = [
    ",",
    "=",
    "t=,v1=",
    f"t={SIGNED_AT}",
    f"v1={VECTOR}",
    f"t={SIGNED_AT},v0={VECTOR}",
    f"t={SIGNED_AT},V1={VECTOR}",
    f"T={SIGNED_AT},v1={VECTOR}",
    f"t={SIGNED_AT},v1={VECTOR.upper()}",
    f"t={SIGNED_AT},v1={VECTOR[:-1]}",
    f"t={SIGNED_AT},v1={VECTOR}0",
    f"t={SIGNED_AT};v1={VECTOR}",
    f"t={SIGNED_AT} v1={VECTOR}",
    f"t={SIGNED_AT},v1={VECTOR}\n",
    f"t = {SIGNED_AT},v1={VECTOR}",
    f"t=+{SIGNED_AT},v1={VECTOR}",
    f"t=-{SIGNED_AT},v1={VECTOR}",
    f"t=0{SIGNED_AT},v1={VECTOR}",
    f"t={SIGNED_AT}.0,v1={VECTOR}",
    f"t=1_492_774_577,v1={VECTOR}",
    f"t=１４９２７７４５７７,v1={VECTOR}",
    f"t={SIGNED_AT},v1=é{VECTOR[1:]}",
    f"t={SIGNED_AT},v1={VECTOR[:-1]}\udcff",
    f"t={SIGNED_AT},t={SIGNED_AT + 1},v1={VECTOR}",
    f"t={'9' * 400},v1={VECTOR}",
    f"t={'9' * 13},v1={VECTOR}",
    f"t={SIGNED_AT}" + f",v1={NOT_IT}" * MAX_SIGNATURES + f",v1={VECTOR}",
    f"t={SIGNED_AT},v1=" + "a" * 300,
    "t=1\x00,v1=" + VECTOR,
]


@pytest.mark.parametrize("header", HOSTILE)
def test_hostile_headers_are_malformed_and_never_an_error(header: str) -> None:
    verdict = check(header)
    assert isinstance(verdict, Refused)
    assert verdict.reason == "header_malformed"


@pytest.mark.parametrize(
    "header",
    [
        f"t={SIGNED_AT},v1={VECTOR},",
        f",t={SIGNED_AT} , v1={VECTOR}",
        f"t={SIGNED_AT},v1={VECTOR},v0=",
        f"t={SIGNED_AT},v2={VECTOR},v1={VECTOR}",
        f"t={SIGNED_AT},v1=short,v1={VECTOR},V9,é=\udcff",
        f"t=soon,t={SIGNED_AT},v1={VECTOR}",
    ],
)
def test_an_element_that_we_do_not_know_is_ignored(header: str) -> None:
    assert check(header) == Genuine(SIGNED_AT, 0)


def test_bounds_of_the_header() -> None:
    assert check("") == Refused("header_missing")
    long = f"t={SIGNED_AT},v1={VECTOR}," + "v0=a," * MAX_HEADER_LENGTH
    assert check(long) == Refused("header_too_long")


def test_without_a_secret_everything_is_refused() -> None:
    empty = signature(BODY, "")
    assert check(f"t={SIGNED_AT},v1={empty}", secrets=("",)) == Refused("signature_mismatch")
    assert check(f"t={SIGNED_AT},v1={empty}", secrets=()) == Refused("signature_mismatch")


def test_one_changed_bit_anywhere_is_refused() -> None:
    generator = random.Random(7)
    for _ in range(200):
        changed = bytearray(BODY)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        assert check(f"t={SIGNED_AT},v1={VECTOR}", body=bytes(changed)) == Refused("signature_mismatch")


def test_random_headers_give_a_verdict() -> None:
    generator = random.Random(11)
    alphabet = f"tv01=,; \t{VECTOR}é\x00-+"
    for _ in range(5_000):
        header = "".join(generator.choices(alphabet, k=generator.randrange(120)))
        assert isinstance(check(header), Refused)


EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "payment_intent.succeeded",
    "created": SIGNED_AT,
    "data": {"object": {"id": "pi_1", "amount_received": 5}},
}


def event(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (EVENT | changes).items() if value is not ...}).encode()


def test_what_is_read_of_an_event() -> None:
    body = event()
    receipt = read_event(body, "t=1,v1=a")
    assert (receipt.provider, receipt.event_id, receipt.event_type) == (
        "stripe",
        "evt_1",
        "payment_intent.succeeded",
    )
    assert receipt.object_id == "pi_1"
    assert receipt.occurred_at is not None
    assert receipt.occurred_at.timestamp() == SIGNED_AT
    assert receipt.headers == {"stripe-signature": "t=1,v1=a"}
    assert receipt.body is body


@pytest.mark.parametrize(
    "body",
    [
        event(created="1492774577"),
        event(data={}),
        event(data={"object": {}}),
        event(data={"object": [1]}),
        event(data={"object": {"id": 5}}),
        event(data={"object": {"id": "x" * 256}}),
        event(data={"object": {"id": "\x00"}}),
        event(unknown={"a": [1, 2]}),
        event(data=...),
        event(data=[]),
        event(data="x"),
        event(created=...),
        event(created="soon"),
        event(created=1.5),
        event(created=-1),
        event(created=10**18),
        event(created=10**30),
        event(created="2026-11-29T17:00:00.123Z", object="v2.core.event", data=...),
        b'{"id":"evt_1","type":"a","created":1,"data":{"object":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"id":"evt_1","type":"a","n":' + b"9" * 5_000 + b',"t":"\xe9\x01\n","f":1e999,"x":NaN}',
        codecs.BOM_UTF8 + event(name="\ud800"),
    ],
)
def test_lenience_of_the_contract(body: bytes) -> None:
    assert read_event(body, "").event_id == "evt_1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"evt_1"',
        b"\xff\xfe{}",
        event(id=...),
        event(type=...),
        event(id=5),
        event(type=None),
        event(id="a\x00b"),
        event(id="\ud800"),
        event(type="\n"),
        event(id="x" * 256),
        event(type="é" * 200),
        b"[" * 200_000,
    ],
)
def test_what_is_not_an_event(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_event(body, "")
    assert (refused.value.code, refused.value.detail) == ("malformed_json", "Invalid JSON payload")


@pytest.mark.parametrize("body", [event(id=""), event(type="")])
def test_empty_fields_have_a_sentence_of_their_own(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_event(body, "")
    assert (refused.value.code, refused.value.detail) == ("invalid_request", "Missing required fields")
