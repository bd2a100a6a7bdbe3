"""Standard Webhooks as a receiver: the published vector, the public library as the signer, v1a, hostile headers."""

import base64
import random
from datetime import UTC, datetime

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.inbox.standard_webhooks import (
    MAX_SIGNATURES,
    Key,
    Signed,
    new_secret,
    public_key,
    secret_key,
    verify,
)
from core.inbox.verifying import NotGenuine

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = b'{"test": 2432232314}'
VECTOR = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
NOT_IT = "v1," + base64.b64encode(bytes(32)).decode()
HEADERS = {"webhook-id": ID, "webhook-timestamp": str(TIME), "webhook-signature": VECTOR}


def check(
    headers: dict[str, str] | None = None,
    *,
    body: bytes = BODY,
    keys: tuple[Key, ...] | None = None,
    now: float = TIME,
) -> Signed:
    return verify(body, headers or HEADERS, keys or (secret_key(SECRET),), now)


def reason(headers: dict[str, str], **more: float) -> str:
    with pytest.raises(NotGenuine) as refused:
        check(headers, **more)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.detail) == ("invalid_signature", "Invalid signature")
    return refused.value.reason


def test_published_vector() -> None:
    assert check() == Signed(ID, TIME)


@pytest.mark.parametrize("body", ["{}", '{"a":"é😀"}', "", "x" * 100_000])
def test_signatures_of_the_public_library(body: str) -> None:
    secret = new_secret()
    at = datetime.fromtimestamp(TIME, UTC)
    signature = standardwebhooks.Webhook(secret).sign(ID, at, body)
    headers = HEADERS | {"webhook-signature": signature}
    assert check(headers, body=body.encode(), keys=(secret_key(secret),)) == Signed(ID, TIME)


def test_ed25519() -> None:
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = public_key("whpk_" + base64.b64encode(raw).decode())
    signature = base64.b64encode(private.sign(f"{ID}.{TIME}.".encode() + BODY)).decode()
    headers = HEADERS | {"webhook-signature": f"{VECTOR} v1a,{signature}"}
    assert check(headers, keys=(key,)) == Signed(ID, TIME)
    assert reason(HEADERS | {"webhook-signature": f"v1,{signature}"}) == "header_malformed"
    with pytest.raises(NotGenuine):
        check(headers, keys=(key,), body=BODY + b" ")
    with pytest.raises(NotGenuine):
        # A symmetric key never makes a v1a, and a public one never a v1: no confusion of the two.
        check(HEADERS, keys=(key,))


def test_every_key_is_tried_with_every_signature() -> None:
    other = secret_key(new_secret())
    ours = secret_key(SECRET)
    headers = HEADERS | {"webhook-signature": f"{NOT_IT} v2,abc= {VECTOR}"}
    assert check(headers, keys=(other, ours)) == Signed(ID, TIME)
    with pytest.raises(NotGenuine):
        check(headers, keys=(other,))


@pytest.mark.parametrize("away", [-300, 0, 300])
def test_tolerance_holds_both_ways_and_includes_its_boundary(away: int) -> None:
    assert check(now=TIME + away) == Signed(ID, TIME)


@pytest.mark.parametrize("away", [-301, 301])
def test_outside_of_the_tolerance(away: int) -> None:
    assert reason(HEADERS, now=TIME + away) == "timestamp_outside_tolerance"


@pytest.mark.parametrize(
    "signature",
    [
        f"{VECTOR},{VECTOR}",
        f"{VECTOR}, {NOT_IT}",
        f"{NOT_IT}\t{VECTOR}",
        f"  {VECTOR} ",
        " ".join([NOT_IT] * (MAX_SIGNATURES - 1) + [VECTOR]),
        f"{VECTOR} vX,abc",
        f"vX,abc,{VECTOR}",
        f"v1,!!! {VECTOR} v1a,short é",
        f"{VECTOR},v0=,",
    ],
)
def test_spellings_that_a_proxy_makes(signature: str) -> None:
    assert check(HEADERS | {"webhook-signature": signature}) == Signed(ID, TIME)


def test_the_older_names_of_the_headers() -> None:
    old = {name.replace("webhook-", "svix-"): value for name, value in HEADERS.items()}
    assert check(old) == Signed(ID, TIME)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"webhook-id": ""}, "header_missing"),
        ({"webhook-timestamp": ""}, "header_missing"),
        ({"webhook-signature": ""}, "header_missing"),
        ({"webhook-id": "a.b"}, "header_malformed"),
        ({"webhook-id": "é"}, "header_malformed"),
        ({"webhook-id": "a b"}, "header_malformed"),
        ({"webhook-id": "x" * 256}, "header_malformed"),
        ({"webhook-id": "\udcff"}, "header_malformed"),
        ({"webhook-timestamp": "-1"}, "header_malformed"),
        ({"webhook-timestamp": f"0{TIME}"}, "header_malformed"),
        ({"webhook-timestamp": f"{TIME}.0"}, "header_malformed"),
        ({"webhook-timestamp": "9" * 13}, "header_malformed"),
        ({"webhook-timestamp": "１６１４２６５３３０"}, "header_malformed"),
        ({"webhook-signature": VECTOR.removeprefix("v1,")}, "header_malformed"),
        ({"webhook-signature": "v1"}, "header_malformed"),
        ({"webhook-signature": "v1,"}, "header_malformed"),
        ({"webhook-signature": "v1,é"}, "header_malformed"),
        ({"webhook-signature": "v1,abc"}, "header_malformed"),
        ({"webhook-signature": VECTOR + "\n"}, "header_malformed"),
        ({"webhook-signature": VECTOR.replace("v1", "V1")}, "header_malformed"),
        ({"webhook-signature": " ".join([NOT_IT] * MAX_SIGNATURES + [VECTOR])}, "header_malformed"),
        ({"webhook-signature": f"{NOT_IT} " * 60}, "header_too_long"),
        ({"webhook-signature": NOT_IT}, "signature_mismatch"),
        ({"webhook-signature": VECTOR.replace("v1", "v1a")}, "header_malformed"),
        ({"webhook-signature": "v2,abc="}, "header_malformed"),
    ],
)
def test_hostile_headers(changes: dict[str, str], expected: str) -> None:
    assert reason(HEADERS | changes) == expected


def test_one_changed_bit_anywhere_is_refused() -> None:
    generator = random.Random(7)
    for _ in range(200):
        changed = bytearray(BODY)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        with pytest.raises(NotGenuine):
            check(body=bytes(changed))


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "whsec_" + "A" * 90, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_é"],
)  # fmt: skip
def test_weak_secrets(secret: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|bytes"):
        secret_key(secret)


@pytest.mark.parametrize("text", ["", "whpk_", "whpk_c2hvcnQ=", "whpk_!!!", SECRET])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"whpk_|bytes"):
        public_key(text)
