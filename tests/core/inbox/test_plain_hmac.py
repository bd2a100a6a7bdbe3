"""Plain HMAC signatures, and where a source's requests say what they are."""

import base64
import hashlib
import hmac
import json
from contextlib import suppress

import pytest

from core.errors import Refusal
from core.inbox.cloudpayments import read_event
from core.inbox.locations import Payload
from core.inbox.plain_hmac import Scheme, check_secret, verify
from core.inbox.verifying import NotGenuine

SECRET = "a secret of sixteen"
BODY = b'{"a":1}'
GITHUB = Scheme("X-Hub-Signature-256", prefix="sha256=")
SHOPIFY = Scheme("X-Shopify-Hmac-Sha256", encoding="base64")


def digest(algorithm: str = "sha256", secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), BODY, getattr(hashlib, algorithm)).digest()


@pytest.mark.parametrize(
    ("scheme", "header"),
    [
        (GITHUB, "sha256=" + digest().hex()),
        (GITHUB, "sha256=" + digest().hex().upper()),
        (SHOPIFY, base64.b64encode(digest()).decode()),
        (Scheme("Sign", "sha512"), digest("sha512").hex()),
        (Scheme("Sign", "sha512", "base64"), base64.b64encode(digest("sha512")).decode()),
        (Scheme("Sign"), digest(secret="another secret of ours").hex()),
    ],
)
def test_genuine(scheme: Scheme, header: str) -> None:
    verify(BODY, {scheme.header.lower(): header}, scheme, [SECRET, "another secret of ours"])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "header_missing"),
        (digest().hex(), "header_malformed"),
        ("sha256=", "header_malformed"),
        ("sha256=" + digest().hex()[:-1], "header_malformed"),
        ("sha256=" + digest().hex()[:-2], "header_malformed"),
        ("sha256= " + digest().hex(), "header_malformed"),
        ("sha256=" + digest().hex() + "\n", "header_malformed"),
        ("sha256=" + "é" * 64, "header_malformed"),
        ("sha256=\udcff" + digest().hex()[1:], "header_malformed"),
        ("sha256=" + "0" * 4000, "header_too_long"),
        ("sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest(), "header_malformed"),
        ("sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest(), "header_malformed"),
        ("sha256=" + "0" * 64, "signature_mismatch"),
        ("sha256=" + digest(secret="stranger").hex(), "signature_mismatch"),
    ],
)
def test_not_genuine(header: str, expected: str) -> None:
    with pytest.raises(NotGenuine) as refused:
        verify(BODY, {"x-hub-signature-256": header}, GITHUB, [SECRET])
    assert refused.value.reason == expected


@pytest.mark.parametrize("header", ["é" * 44, "=" * 44, "A" * 43, "A" * 45, "A" * 4000, "\udcff"])
def test_hostile_base64(header: str) -> None:
    with pytest.raises(NotGenuine):
        verify(BODY, {"x-shopify-hmac-sha256": header}, SHOPIFY, [SECRET])


@pytest.mark.parametrize("secret", ["", "x" * 15, "x" * 257, "with a blank in it", "é" * 20, "\n" * 20])
def test_secrets_that_are_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="16 to 256"):
        check_secret(secret)


TREE = {
    "id": "evt",
    "n": 5,
    "list": [{"a/b": "x", "m~n": "y"}],
    "nul": None,
    "yes": True,
    "half": 0.5,
    "": "e",
}


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/id", "evt"),
        ("/n", "5"),
        ("/list/0/a~1b", "x"),
        ("/list/0/m~0n", "y"),
        ("/list/1", None),
        ("/list/-1", None),
        ("/list/²", None),
        ("/list", None),
        ("/id/x", None),
        ("/nothing", None),
        ("/nul", None),
        ("/yes", None),
        ("/half", None),
        ("header:X-Id", "from the header"),
        ("header:X-Nothing", None),
    ],
)
def test_locations(location: str, text: str | None) -> None:
    payload = Payload(json.dumps(TREE).encode(), {"x-id": "from the header"})
    assert payload.text_at(location) == text


def test_an_id_of_several_parts() -> None:
    payload = Payload(b'{"invoice":{"id":7,"status":"paid","empty":""}}', {})
    assert payload.joined(["/invoice/id", "/invoice/status"]) == "7:paid"
    assert payload.joined(["/invoice/id", "/invoice/empty"]) is None
    assert payload.joined(["/invoice/id", "/invoice/nothing"]) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"null", b"\xff", b"{", b"[" * 100_000])
def test_a_body_that_is_no_object(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        Payload(body, {}).text_at("/id")
    assert (refused.value.code, refused.value.detail) == ("malformed_json", "Invalid JSON payload")
    assert Payload(body, {"x": "y"}).text_at("header:x") == "y"


SLOPPY_FORMS = (
    b"TransactionId=6&type=y&",
    b"TransactionId=6&type=y&x",
    b"&TransactionId=6&&type=y",
    b"\xef\xbb\xbfTransactionId=6&type=y",
)
ENCODED = [
    ('{"TransactionId": "6", "type": "y"}').encode(encoding)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
]


@pytest.mark.parametrize("body", [*SLOPPY_FORMS, *ENCODED])
def test_forms_and_encodings_are_read_alike_for_every_provider(body: bytes) -> None:
    payload = Payload(body, {})
    assert (payload.text_at("/TransactionId"), payload.text_at("/type")) == ("6", "y")
    assert read_event("pay", body, {}).event_id == "pay:6"


def test_numbers_of_any_length() -> None:
    assert Payload(b'{"id":12345678901234567890}', {}).text_at("/id") == "12345678901234567890"
    assert Payload(b'{"id":' + b"9" * 30 + b"}", {}).text_at("/id") is None
    # Python reads no number of more than 4,300 digits.
    with suppress(Refusal):
        assert Payload(b'{"id":' + b"9" * 5_000 + b"}", {}).text_at("/id") is None
