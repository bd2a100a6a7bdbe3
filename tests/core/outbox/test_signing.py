"""The signatures of a delivery, against the public vector, the public library and the existing contract."""

import base64
import hashlib
import hmac
import json
import time
import uuid

import pytest
from standardwebhooks import Webhook

from core.errors import Refusal
from core.outbox.events import encode
from core.outbox.signing import check_own_secret, check_secret, message_id, new_secret, signed_headers

EVENT, DELIVERY = uuid.uuid4(), uuid.uuid4()
BODY = encode("payment.succeeded", {"id": "pi_1", "note": "Zürich ✓"})


def headers(secrets: list[str], timestamp: int | None = None) -> dict[str, str]:
    return signed_headers(
        identity=message_id(EVENT),
        event_type="payment.succeeded",
        delivery_id=DELIVERY,
        body=BODY,
        secrets=secrets,
        timestamp=int(time.time()) if timestamp is None else timestamp,
    )


def test_the_body_is_compact_ascii_and_reads_back() -> None:
    assert BODY == b'{"type":"payment.succeeded","data":{"id":"pi_1","note":"Z\\u00fcrich \\u2713"}}'
    assert json.loads(BODY)["data"]["note"] == "Zürich ✓"


def test_the_public_library_verifies() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, headers([secret])) == json.loads(BODY)


def test_during_a_rotation_both_secrets_verify() -> None:
    new, old = new_secret(), new_secret()
    sent = headers([new, old])
    for secret in (new, old):
        Webhook(secret).verify(BODY, sent)
    signed = sent["X-Webhook-Ts"].encode() + b"payment.succeeded" + BODY
    assert sent["X-Webhook-Sign"] == hmac.new(old.encode(), signed, hashlib.sha256).hexdigest()


def test_the_form_of_the_existing_contract() -> None:
    secret = new_secret()
    sent = headers([secret], timestamp=1_700_000_000)
    expected = hmac.new(secret.encode(), b"1700000000payment.succeeded" + BODY, hashlib.sha256).hexdigest()
    assert sent["X-Webhook-Sign"] == expected
    assert sent["X-Webhook-Event"] == "payment.succeeded"
    assert sent["X-Delivery-ID"] == str(DELIVERY)
    assert sent["User-Agent"] == "Payments-Webhooks/0.1"


def test_the_message_id_is_of_the_event_and_holds_no_full_stop() -> None:
    assert headers([new_secret()])["webhook-id"] == message_id(EVENT) == f"msg_{EVENT.hex}"


def test_secrets_of_24_to_64_bytes() -> None:
    for size in (24, 32, 64):
        check_secret("whsec_" + base64.b64encode(b"k" * size).decode())
    check_secret(new_secret())
    for size in (0, 23, 65):
        with pytest.raises(Refusal):
            check_secret("whsec_" + base64.b64encode(b"k" * size).decode())


@pytest.mark.parametrize("secret", ["s", "a text: ключ", "whsec_", "whsec_not base64", "x" * 64])
def test_a_secret_of_the_existing_contract_signs_both_forms(secret: str) -> None:
    check_own_secret(secret)
    sent = headers([secret])
    content = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + BODY
    digest = base64.b64encode(hmac.digest(secret.encode(), content, "sha256")).decode()
    assert sent["webhook-signature"] == f"v1,{digest}"
    signed = sent["X-Webhook-Ts"].encode() + b"payment.succeeded" + BODY
    assert sent["X-Webhook-Sign"] == hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secret", ["", "x" * 65, "a\0"])
def test_what_is_no_secret_of_the_existing_contract(secret: str) -> None:
    with pytest.raises(Refusal):
        check_own_secret(secret)
