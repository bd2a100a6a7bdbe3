"""Signatures that a receiver checks without holding a secret: Standard Webhooks' v1a."""

import json
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
from standardwebhooks import Webhook

from core.inbox import standard_webhooks
from core.inbox.verifying import NotGenuine
from core.outbox.signing import message_id, new_secret, new_signing_key, public_key, signed_headers
from ops.receiving import Delivery
from tests.core.outbox.office import Office
from tests.jobs.merchant import Receiver


def genuine(sent: Delivery, public: str) -> bool:
    """Whether a receiver that holds only this public key believes the delivery."""
    headers = {name.lower(): value for name, value in sent.headers.items()}
    key = standard_webhooks.public_key(public)
    try:
        signed = standard_webhooks.verify(sent.body, headers, [key], time.time())
    except NotGenuine:
        return False
    return signed.message_id == headers["webhook-id"]


async def deliver(office: Office, receiver: Receiver) -> Delivery:
    await office.emit()
    await office.deliver()
    sent: Delivery = receiver.deliveries[-1]
    return sent


async def test_an_endpoint_that_asks_for_it_gets_both_signatures(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, signature="v1a")
    assert (endpoint["signature"], endpoint["public_key"][:5]) == ("v1a", "whpk_")
    shown = await office.get(f"/v1/webhook-endpoints/{endpoint['id']}")
    assert shown["public_key"] == endpoint["public_key"]
    assert "whsk_" not in json.dumps([endpoint, shown])
    sent = await deliver(office, receiver)
    assert genuine(sent, endpoint["public_key"])
    receiver.verify(sent)
    Webhook(endpoint["secret"]).verify(
        sent.body, {name.lower(): value for name, value in sent.headers.items()}
    )
    assert not genuine(replace(sent, body=sent.body + b" "), endpoint["public_key"])
    assert not genuine(sent, public_key(new_signing_key()))


async def test_others_get_one_signature_and_have_no_public_key(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver)
    assert (endpoint["signature"], endpoint["public_key"]) == ("v1", None)
    sent = await deliver(office, receiver)
    assert "v1a," not in sent.headers["webhook-signature"]
    receiver.verify(sent)


async def test_a_rotation_overlaps_in_both(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver, signature="v1a")
    path = f"/v1/webhook-endpoints/{endpoint['id']}"
    rotated = await office.post(f"{path}/secret/rotate", {"overlap_seconds": 600}, status=200)
    old, new = endpoint["public_key"], rotated["public_key"]
    assert new != old
    assert (await office.get(path))["public_key"] == new
    sent = await deliver(office, receiver)
    assert [genuine(sent, key) for key in (old, new)] == [True, True]
    receiver.verify(sent)
    await office.sql("UPDATE webhook_endpoints SET old_secrets_until = now() - interval '1 s'")
    sent = await deliver(office, receiver)
    assert [genuine(sent, key) for key in (old, new)] == [False, True]
    last = await office.post(f"{path}/secret/rotate", {"overlap_seconds": 0}, status=200)
    sent = await deliver(office, receiver)
    assert [genuine(sent, key) for key in (old, new, last["public_key"])] == [False, False, True]


async def test_it_is_switched_on_and_off(office: Office, receiver: Receiver) -> None:
    endpoint = await office.listen(receiver)
    path = f"/v1/webhook-endpoints/{endpoint['id']}"

    async def change(**changes: Any) -> dict[str, Any]:
        status, shown = await office.call("PATCH", path, changes)
        assert status == 200, shown
        found: dict[str, Any] = shown
        return found

    on = await change(signature="v1a")
    assert on["signature"] == "v1a"
    assert (await change(signature="v1a"))["public_key"] == on["public_key"], "it has one"
    assert (await change(description="x"))["public_key"] == on["public_key"]
    assert genuine(await deliver(office, receiver), on["public_key"])
    off = await change(signature="v1")
    assert (off["signature"], off["public_key"]) == ("v1", None)
    assert not genuine(await deliver(office, receiver), on["public_key"])
    assert (await change(signature="v1a"))["public_key"] != on["public_key"]
    rotated = await office.post(f"{path}/secret/rotate", {}, status=200)
    assert rotated["public_key"] is not None


@pytest.mark.parametrize("signature", ["v2", "", None, 1, ["v1"]])
async def test_another_signature_is_not_known(office: Office, signature: object) -> None:
    status, problem = await office.call(
        "POST", "/v1/webhook-endpoints", {"url": "https://shop.example.com/", "signature": signature}
    )
    assert (status, problem["error"]["code"]) == (400, "invalid_request")


def test_eight_signatures_fit_into_what_receivers_read() -> None:
    keys, some_id = [new_signing_key() for _ in range(4)], uuid.uuid4()
    sent = signed_headers(
        identity=message_id(some_id),
        event_type="a.b",
        delivery_id=some_id,
        body=b"{}",
        secrets=[new_secret() for _ in range(4)],
        signing_keys=keys,
        timestamp=int(time.time()),
    )
    for key in keys:
        verifier = standard_webhooks.public_key(public_key(key))
        standard_webhooks.verify(b"{}", sent, [verifier], time.time())
