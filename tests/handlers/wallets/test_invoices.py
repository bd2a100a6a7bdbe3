"""Invoices and mandates: issued, paid by hand or by themselves, taken back; and what races between these."""

import asyncio
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK
from tests.handlers.wallets.billing import bill, status_of
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, told

# Whoever pays waits there, having read the payable, and holding its lock where the lock is there.
READ = (LOCK, BARRIER + "\n" + LOCK)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"env": "dev"})


@pytest.fixture
async def shop(person: MakePerson) -> Person:
    """Somebody who may issue invoices."""
    return await person(kyc=1, merchant=True)


async def test_issue_and_pay(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=1_000)
    body = {"payer_phone": ann.phone, "amount_cents": "300", "reference": "R1", "description": "Tea"}
    said = await shop.post("/invoices", body)
    invoice = said.json
    assert list(invoice) == [
        "id",
        "issuer_phone",
        "payer_phone",
        "amount_cents",
        "currency_code",
        "status",
        "reference",
        "description",
        "due_at",
        "created_at",
        "paid_transfer_id",
    ]
    assert invoice == invoice | {
        "issuer_phone": shop.phone,
        "payer_phone": ann.phone,
        "amount_cents": 300,
        "currency_code": "SYP",
        "status": "pending",
        "reference": "R1",
        "description": "Tea",
        "paid_transfer_id": None,
    }
    due_in = datetime.fromisoformat(invoice["due_at"]) - datetime.fromisoformat(invoice["created_at"])
    assert abs(due_in - timedelta(days=10)) < timedelta(seconds=5)
    path = f"/invoices/{invoice['id']}"
    assert (await ann.get(path)).json == (await shop.get(path)).json == invoice
    paid = await ann.post(f"{path}/pay", key="k")
    assert paid.json == {
        "transfer_id": paid.json["transfer_id"],
        "from_wallet_id": str(ann.user.wallet_id),
        "to_wallet_id": str(shop.user.wallet_id),
        "amount_cents": 300,
        "currency_code": "SYP",
        "status": "completed",
    }
    # Under the same key, another one and none: the first payment.
    for key in ("k", "other", None):
        assert (await ann.post(f"{path}/pay", key=key)).body == paid.body
    assert (await ann.balance(), await shop.balance()) == (700, 300)
    after = invoice | {"status": "paid", "paid_transfer_id": paid.json["transfer_id"]}
    assert (await ann.get("/invoices")).json == {"incoming": [after], "outgoing": []}
    assert (await shop.get("/invoices")).json == {"incoming": [], "outgoing": [after]}
    assert await told(owner, shop) == [
        ("invoices.create", {"id": invoice["id"], "amount_cents": 300}),
        ("invoices.pay", {"id": invoice["id"], "transfer_id": paid.json["transfer_id"], "amount_cents": 300}),
    ]


async def test_payer_who_is_not_known_gets_a_wallet(person: MakePerson, shop: Person) -> None:
    phone = "+963999000222"
    said = await shop.post("/invoices", {"payer_phone": phone, "amount_cents": 1})
    assert said.status == 200
    payer = await person(phone=phone)
    assert [invoice["id"] for invoice in (await payer.get("/invoices")).json["incoming"]] == [said.json["id"]]


@pytest.mark.shared
async def test_a_key_of_something_else_pays_nothing(person: MakePerson, shop: Person) -> None:
    ann = await person(balance=1_000)
    transfer = {"to_phone": shop.phone, "amount_cents": 1, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", transfer)).status == 200
    first, second = await bill(shop, ann), await bill(shop, ann)
    conflict = (409, "Idempotency-Key conflict for different request")
    assert (await ann.post(f"/invoices/{first}/pay", key="k")).refusal == conflict
    assert await status_of(ann, first) == "pending"
    assert (await ann.post(f"/invoices/{first}/pay", key="k2")).status == 200
    assert (await ann.post(f"/invoices/{second}/pay", key="k2")).refusal == conflict
    assert await status_of(ann, second) == "pending"


@pytest.mark.shared
async def test_refusals(person: MakePerson, shop: Person) -> None:
    ann, eve, low = await person(balance=10), await person(kyc=1), await person(merchant=True)
    body = {"payer_phone": ann.phone, "amount_cents": 1}
    assert (await low.post("/invoices", body)).refusal == (403, "KYC level required")
    assert (await eve.post("/invoices", body)).refusal == (403, "Not a merchant")
    own = {**body, "payer_phone": shop.phone}
    assert (await shop.post("/invoices", own)).refusal == (400, "Cannot invoice yourself")
    for bad in (
        {"due_in_days": 366},
        {"due_in_days": -1},
        {"reference": "x" * 129},
        {"description": "x" * 513},
        {"amount_cents": 0},
        {"description": "a\0"},
    ):
        assert (await shop.post("/invoices", {**body, **bad})).status == 422
    invoice_id = await bill(shop, ann)
    assert (await eve.get(f"/invoices/{invoice_id}")).refusal == (403, "Forbidden")
    assert (await eve.post(f"/invoices/{invoice_id}/pay")).refusal == (403, "Not your invoice")
    assert (await ann.post(f"/invoices/{invoice_id}/cancel")).refusal == (403, "Forbidden")
    assert (await eve.post(f"/invoices/{invoice_id}/cancel")).refusal == (403, "Forbidden")
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).refusal == (400, "Insufficient balance")
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="x" * 65)).status == 400
    await ann.top_up(90)
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).status == 200
    for path in ("", "/pay", "/cancel", "/dev_force_due"):
        method = "POST" if path else "GET"
        missing = await ann.ask(method, f"/invoices/{uuid.uuid4()}{path}")
        assert missing.refusal == (404, "Invoice not found")
        assert (await ann.ask(method, f"/invoices/nothing{path}")).status == 422


@pytest.mark.shared
async def test_funds_come_before_limits(person: MakePerson, shop: Person, settings: Settings) -> None:
    ann = await person()
    invoice_id = await bill(shop, ann, settings.kyc_l0_tx_max_cents + 1)
    assert (await ann.post(f"/invoices/{invoice_id}/pay")).refusal == (400, "Insufficient balance")
    await ann.top_up(settings.kyc_l0_tx_max_cents + 1)
    said = await ann.post(f"/invoices/{invoice_id}/pay")
    assert said.refusal == (400, "KYC transaction limit exceeded")


async def test_cancel(person: MakePerson, shop: Person, owner: Any) -> None:
    ann = await person(balance=1_000)
    invoice_id = await bill(shop, ann)
    assert (await shop.post(f"/invoices/{invoice_id}/cancel")).json == {"detail": "canceled"}
    assert (await shop.post(f"/invoices/{invoice_id}/cancel")).json == {"detail": "already canceled"}
    for key in (None, "k"):
        said = await ann.post(f"/invoices/{invoice_id}/pay", key=key)
        assert said.refusal == (400, "Cannot pay canceled invoice")
    assert await status_of(ann, invoice_id) == "canceled"
    assert (await told(owner, shop))[1:] == [("invoices.cancel", {"id": invoice_id})]
    paid = await bill(shop, ann)
    await ann.post(f"/invoices/{paid}/pay")
    assert (await shop.post(f"/invoices/{paid}/cancel")).json == {"detail": "already paid"}


async def test_mandates(person: MakePerson, shop: Person, owner: Any) -> None:
    ann, eve = await person(), await person()
    body = {"issuer_phone": shop.phone, "autopay": True, "max_amount_cents": 500}
    made = (await ann.post("/invoices/mandates", body)).json
    assert list(made) == [
        "id",
        "issuer_phone",
        "autopay",
        "max_amount_cents",
        "status",
        "created_at",
        "updated_at",
    ]
    assert (made["issuer_phone"], made["autopay"], made["max_amount_cents"]) == (shop.phone, True, 500)
    changed = (await ann.post("/invoices/mandates", {"issuer_phone": shop.phone})).json
    assert (changed["id"], changed["autopay"], changed["max_amount_cents"]) == (made["id"], False, None)
    assert changed["created_at"] == made["created_at"]
    assert (await ann.get("/invoices/mandates")).json == {"items": [changed]}
    path = f"/invoices/mandates/{made['id']}/revoke"
    assert (await eve.post(path)).refusal == (403, "Forbidden")
    assert (await ann.post(path)).json == {"detail": "revoked"}
    assert (await ann.post(path)).json == {"detail": "already revoked"}
    assert (await ann.get("/invoices/mandates")).json["items"][0]["status"] == "revoked"
    assert (await ann.post("/invoices/mandates", body)).json["status"] == "active"
    missing = await ann.post(f"/invoices/mandates/{uuid.uuid4()}/revoke")
    assert missing.refusal == (404, "Mandate not found")
    said = await ann.post("/invoices/mandates", {**body, "max_amount_cents": 0})
    assert (said.status, said.json["detail"][0]["type"]) == (422, "greater_than_equal")
    # Whoever is named gets a wallet.
    assert (await ann.post("/invoices/mandates", {"issuer_phone": "+963999000333"})).status == 200
    assert [event for event, _ in await told(owner, shop)] == [
        "invoices.mandate_upsert",
        "invoices.mandate_upsert",
        "invoices.mandate_revoke",
        "invoices.mandate_upsert",
    ]


async def test_paying_takes_three_round_trips(
    person: MakePerson, shop: Person, round_trips: list[str]
) -> None:
    ann = await person(balance=100)
    invoice_id = await bill(shop, ann)
    round_trips.clear()
    assert (await ann.post(f"/invoices/{invoice_id}/pay", key="k")).status == 200
    assert round_trips == ["users_by_id", "payables_to_pay", "post_with_effects"]


# --- Races


async def test_many_pay_and_the_issuer_cancels(
    person: MakePerson, shop: Person, elsewhere: ApiClient
) -> None:
    ann = await person(balance=10_000)
    for _ in range(5):
        invoice_id = await bill(shop, ann)
        before = await ann.balance()
        canceled, *said = await asyncio.gather(
            shop.post(f"/invoices/{invoice_id}/cancel"),
            *(
                side.post(f"/invoices/{invoice_id}/pay")
                for _ in range(4)
                for side in (ann, ann.at(elsewhere))
            ),
        )
        if canceled.json["detail"] == "canceled":
            assert {one.status for one in said} == {400}
            assert await ann.balance() == before
        else:
            assert canceled.json["detail"] == "already paid"
            assert len({one.body for one in said}) == 1
            assert await ann.balance() == before - 100
