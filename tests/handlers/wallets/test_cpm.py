"""Customers who show a code, and merchants who scan it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from core.platform import Platform
from tests.handlers.wallets.conftest import MakePerson, Person


async def ask(merchant: Person, text: object, amount: object = 100, **more: Any) -> Any:
    body = {"amount_cents": amount, "scanned_text": text}
    return await merchant.post("/payments/merchant/cpm_request", body, **more)


async def test_what_a_customer_shows(person: MakePerson) -> None:
    ann = await person()
    assert (await ann.get("/payments/cpm_qr")).json == {"qr_text": f"CPM:v1;phone={ann.phone}"}
    said = await ann.get("/payments/cpm_qr", format="id")
    assert said.json == {"qr_text": f"CPM:v1;id={ann.user.id}"}
    assert (await ann.get("/payments/cpm_qr", format="x")).refusal == (400, "Invalid format")


@pytest.mark.parametrize("form", ["phone", "id"])
async def test_a_scan_becomes_a_request(person: MakePerson, owner: Any, form: str) -> None:
    shop, ann = await person(merchant=True), await person()
    text = (await ann.get("/payments/cpm_qr", format=form)).json["qr_text"]
    said = await shop.post("/payments/merchant/cpm_request", {"amount_cents": 700, "code": text})
    assert said.status == 200
    assert said.json == {"id": said.json["id"], "deeplink": f"payments://request/{said.json['id']}"}
    row = await owner.fetchrow("SELECT * FROM payables WHERE id = $1", said.json["id"])
    assert (row["kind"], row["state"], row["amount"], row["currency"]) == ("request", "open", 700, "SYP")
    assert (row["payee_id"], row["payer_id"]) == (shop.user.id, ann.user.id)
    (incoming,) = (await ann.get("/requests")).json["incoming"]
    assert (incoming["id"], incoming["status"]) == (said.json["id"], "pending")
    assert list(incoming["metadata"].items()) == [("source", "cpm"), ("via", "pos")]
    left = row["expires_at"] - datetime.now(UTC)
    assert timedelta(minutes=29) < left < timedelta(minutes=30)
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'payments.cpm_request'") == 1
    assert await owner.fetchval("SELECT count(*) FROM outbox_events") == 1


@pytest.mark.parametrize("changed", [{"request_expiry_minutes": 0}])
async def test_a_request_without_an_end(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(merchant=True), await person()
    said = await ask(shop, f"CPM:v1;phone={ann.phone}")
    assert await owner.fetchval("SELECT expires_at FROM payables WHERE id = $1", said.json["id"]) is None


async def test_an_unknown_phone_gets_a_wallet(person: MakePerson, platform: Platform) -> None:
    shop = await person(merchant=True)
    assert (await ask(shop, "CPM:v1;phone=+963777000111")).status == 200
    assert await platform.users.by_phone("+963777000111") is not None


async def test_a_key_makes_one_request(person: MakePerson, owner: Any) -> None:
    shop, ann = await person(merchant=True), await person()
    text = f"CPM:v1;id={ann.user.id}"
    first, again = await ask(shop, text, key="k"), await ask(shop, text, key="k")
    assert first.body == again.body
    assert (await ask(shop, text, 101, key="k")).refusal[0] == 409
    assert (await ask(shop, text)).json["id"] != first.json["id"]
    assert await owner.fetchval("SELECT count(*) FROM payables") == 2


async def test_why_not(person: MakePerson) -> None:
    shop, ann = await person(merchant=True), await person()
    good = f"CPM:v1;phone={ann.phone}"
    assert (await ask(ann, good)).refusal == (403, "Not a merchant")
    amounts: tuple[object, ...] = ("100", 0, -1, 1.5, None, [], 2**63)
    for amount in amounts:
        assert (await ask(shop, good, amount)).refusal == (400, "Invalid payload")
    for text in (None, "", 5, {"a": 1}):
        assert (await ask(shop, text)).refusal == (400, "Invalid payload")
    for phone in ("0999", "+12", "+96 399", "", "+" + "1" * 40, "+963944123456#7"):
        assert (await ask(shop, f"CPM:v1;phone={phone}")).refusal == (400, "Invalid phone format")
    for target in ("", "x", str(uuid4()), "é"):
        assert (await ask(shop, f"CPM:v1;id={target}")).refusal == (404, "Target not found")
    assert (await ask(shop, "CPM:v2;x")).refusal == (400, "Unsupported CPM format")
    assert (await ask(shop, good, amount=True)).status == 400
    # That it is an object is told before who asks.
    bodies: tuple[Any, ...] = ([], "x", 5)
    for body in bodies:
        said = await ann.post("/payments/merchant/cpm_request", body)
        assert (said.status, said.json["detail"][0]["type"]) == (422, "dict_type")
