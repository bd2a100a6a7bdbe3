"""CloudPayments' signature and fields: both headers, both forms of the message, forms and JSON, and forgeries."""

import base64
import hashlib
import hmac
import json
from urllib.parse import unquote_plus, urlencode

import pytest

from core.errors import Refusal
from core.inbox.cloudpayments import AMBIGUOUS, check_signature, read_event, read_fields
from core.inbox.verifying import NotGenuine

SECRET = "api-secret"
FIELDS = {
    "TransactionId": "89412",
    "Amount": "150.00",
    "Currency": "KZT",
    "DateTime": "2026-11-21 16:00:00",
    "AccountId": "customer:17",
    "Name": "ИВАН И",
    "Data": '{"a":"1+2"}',
    "Status": "Completed",
}
FORM = urlencode(FIELDS).encode()


def sign(message: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


RAW, DECODED = sign(FORM), sign(unquote_plus(FORM.decode()).encode())
NOT_IT = sign(b"something else")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-hmac": RAW, "x-content-hmac": DECODED},
        {"content-hmac": DECODED, "x-content-hmac": RAW},
        {"content-hmac": RAW},
        {"x-content-hmac": RAW},
        {"content-hmac": DECODED},
        {"x-content-hmac": DECODED},
        {"content-hmac": NOT_IT, "x-content-hmac": RAW},
    ],
)
def test_either_header_over_either_form(headers: dict[str, str]) -> None:
    check_signature(FORM, headers, [SECRET])
    check_signature(FORM, headers, ["", "newer-secret", SECRET])


def test_json() -> None:
    body = json.dumps(
        FIELDS | {"TransactionId": 89412, "TestMode": True, "Amount": 150.5, "CardType": None}
    ).encode()
    check_signature(body, {"content-hmac": sign(body)}, [SECRET])
    fields = read_fields(body)
    assert (fields["TransactionId"], fields["TestMode"], fields["Amount"]) == ("89412", "true", "150.5")
    assert "CardType" not in fields


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "header_missing"),
        ({"content-hmac": ""}, "header_missing"),
        ({"content-hmac": NOT_IT}, "signature_mismatch"),
        ({"content-hmac": sign(FORM, "")}, "signature_mismatch"),
        ({"content-hmac": RAW + "\n"}, "header_malformed"),
        ({"content-hmac": RAW[:-1]}, "header_malformed"),
        ({"content-hmac": f"{NOT_IT},é", "x-content-hmac": "v2=abc"}, "signature_mismatch"),
        ({"content-hmac": "\udcff" * 44}, "header_malformed"),
        ({"content-hmac": hashlib.sha256(FORM).hexdigest()}, "header_malformed"),
    ],
)
def test_not_genuine(headers: dict[str, str], expected: str) -> None:
    with pytest.raises(NotGenuine) as refused:
        check_signature(FORM, headers, [SECRET, ""])
    assert refused.value.reason == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"content-hmac": f"{RAW},{RAW}"},
        {"content-hmac": f"v2=abc, {RAW}"},
        {"content-hmac": RAW, "x-content-hmac": "é"},
        {"content-hmac": RAW[:-1], "x-content-hmac": RAW},
    ],
)
def test_a_signature_that_we_do_not_know_is_ignored(headers: dict[str, str]) -> None:
    check_signature(FORM, headers, [SECRET])


def test_without_a_secret_everything_is_refused() -> None:
    with pytest.raises(NotGenuine):
        check_signature(FORM, {"content-hmac": RAW}, [])
    with pytest.raises(NotGenuine):
        check_signature(FORM, {"content-hmac": sign(FORM, "")}, [""])


def test_fields_cannot_be_merged() -> None:
    """Undone, an encoded & is a plain one: what was signed in the open could be hidden in the field before it."""
    genuine = b"TransactionId=1&Status=Declined"
    with pytest.raises(NotGenuine):
        check_signature(b"TransactionId=1%26Status=Declined", {"content-hmac": sign(genuine)}, [SECRET])


def test_a_field_cannot_be_overridden() -> None:
    """A payer's own text, once decoded, may look like more fields; neither of two is taken."""
    decoded = unquote_plus(urlencode(FIELDS | {"Name": "x&AccountId=thief"})).encode()
    check_signature(decoded, {"x-content-hmac": sign(decoded)}, [SECRET])
    assert read_fields(decoded)["AccountId"] == AMBIGUOUS
    assert read_event("pay", decoded, {}).event_id == f"pay:{FIELDS['TransactionId']}"


def test_a_name_cannot_be_hidden() -> None:
    """Undone, an encoded = is a plain one: a field whose name is hidden so would be read as absent."""
    genuine = b"Id=r-1&TransactionId=1"
    with pytest.raises(NotGenuine):
        check_signature(b"Id%3Dr-1&TransactionId=1", {"content-hmac": sign(genuine)}, [SECRET])


def test_json_cannot_be_turned_into_a_form() -> None:
    genuine = json.dumps({"TransactionId": 1, "Name": "x&TransactionId=2&AccountId=thief&y="}).encode()
    forged = genuine.replace(b"{", b"%7B", 1)
    with pytest.raises(NotGenuine):
        check_signature(forged, {"content-hmac": sign(genuine)}, [SECRET])


@pytest.mark.parametrize(
    ("kind", "fields", "event_id", "object_id"),
    [
        ("pay", FIELDS, "pay:89412", "89412"),
        ("fail", FIELDS, "fail:89412", "89412"),
        ("refund", FIELDS | {"PaymentTransactionId": "77"}, "refund:89412", "77"),
        ("receipt", {"Id": "r-1", "TransactionId": "89412"}, "receipt:r-1", "89412"),
        ("receipt", {"Id": "r-1"}, "receipt:r-1", "r-1"),
    ],
)
def test_what_is_read_of_a_notification(
    kind: str, fields: dict[str, str], event_id: str, object_id: str
) -> None:
    body = urlencode(fields).encode()
    receipt = read_event(kind, body, {"content-hmac": "a", "x-content-hmac": "b", "host": "c"})
    assert (receipt.provider, receipt.event_id, receipt.event_type) == ("cloudpayments", event_id, kind)
    assert (receipt.object_id, receipt.body) == (object_id, body)
    assert receipt.headers == {"content-hmac": "a", "x-content-hmac": "b"}


def test_a_subscription_changes_many_times() -> None:
    first = urlencode({"Id": "sc_1", "Status": "Active", "SuccessfulTransactionsNumber": "1"}).encode()
    second = first.replace(b"=1", b"=2")
    one, again, two = (read_event("recurrent", body, {}) for body in (first, first, second))
    assert one.event_id == again.event_id != two.event_id
    assert {one.object_id, two.object_id} == {"sc_1"}


def test_the_time_is_read_as_utc() -> None:
    receipt = read_event("pay", FORM, {})
    assert receipt.occurred_at is not None
    assert receipt.occurred_at.isoformat() == "2026-11-21T16:00:00+00:00"
    assert read_event("pay", b"TransactionId=1&DateTime=yesterday", {}).occurred_at is None
    assert read_event("pay", b"TransactionId=1", {}).occurred_at is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"TransactionId", "malformed_json"),
        (b"TransactionId=1&TransactionId=2", "malformed_json"),
        (b"TransactionId=%00", "malformed_json"),
        (b"TransactionId=" + b"1" * 256, "malformed_json"),
        (b"TransactionId=" + b"1" * 252, "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"TransactionId":' + b"[" * 100_000, "malformed_json"),
        (b'{"TransactionId":"\\ud800"}', "malformed_json"),
        (b"TransactionId=", "invalid_request"),
        (b"Amount=1", "invalid_request"),
        (b'{"TransactionId":null}', "invalid_request"),
        (b'{"TransactionId":{}}', "invalid_request"),
        (b"{}", "invalid_request"),
        (b"", "invalid_request"),
    ],
)
def test_what_is_no_notification(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_event("pay", body, {})
    assert refused.value.code == code
