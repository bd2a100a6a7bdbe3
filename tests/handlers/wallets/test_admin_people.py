"""What an administrator does to people, over HTTP: merchants, KYC, frozen wallets, sign-ins, credits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core import ids
from core.service import open_service
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.wallets.conftest import Administrator, ApiClient, MakePerson, Person

Wait = Callable[..., Awaitable[Any]]
SECOND_ADMIN = "the-second-admin-token-of-32-chars"


# --- Merchants


async def test_merchants(admin: Administrator, person: MakePerson) -> None:
    ann, bob, eve = await person(merchant=True), await person(), await person(merchant=True)
    one = await admin.get("/admin/merchants", phone=bob.phone)
    assert one.json == {
        "user_id": str(bob.user.id),
        "phone": bob.phone,
        "is_merchant": False,
        "merchant_status": "none",
        "merchant_fee_bps": None,
    }
    # The plus of a query that nobody encoded.
    unencoded = await admin.ask("GET", f"/admin/merchants?phone={ann.phone}")
    assert unencoded.json["user_id"] == str(ann.user.id)
    assert (await admin.get("/admin/merchants", phone="+963000000000")).refusal == (404, "User not found")
    page = (await admin.get("/admin/merchants")).json
    assert [item["user_id"] for item in page["items"]] == [str(ann.user.id), str(eve.user.id)]
    assert (page["limit"], page["offset"]) == (50, 0)
    page = (await admin.get("/admin/merchants", limit="1", offset="1")).json
    assert [item["user_id"] for item in page["items"]] == [str(eve.user.id)]
    page = (await admin.get("/admin/merchants", after=str(ann.user.id))).json
    assert [item["user_id"] for item in page["items"]] == [str(eve.user.id)]
    for bad in ({"limit": "0"}, {"limit": "201"}, {"offset": "-1"}, {"after": "x"}):
        assert (await admin.get("/admin/merchants", **bad)).status == 422


async def test_set_merchant(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann = await person()
    path = f"/admin/merchants/{ann.user.id}/set"
    said = await admin.post(path, {"merchant_status": "applied"})
    assert (said.status, said.body) == (200, b'{"detail":"ok"}')
    found = (await admin.get("/admin/merchants", status="applied")).json["items"]
    assert [item["user_id"] for item in found] == [str(ann.user.id)]
    body = {"is_merchant": True, "merchant_status": "approved", "merchant_fee_bps": 250}
    for _ in range(2):
        assert (await admin.post(path, body)).status == 200
    shown = (await admin.get("/admin/merchants", phone=ann.phone)).json
    assert {name: shown[name] for name in body} == body
    # Null changes nothing; a fee of their own is taken away by name.
    assert (await admin.post(path, {"merchant_fee_bps": None})).status == 200
    assert (await admin.get("/admin/merchants", phone=ann.phone)).json["merchant_fee_bps"] == 250
    assert (await admin.post(path, {"no_own_fee": True})).status == 200
    assert (await admin.get("/admin/merchants", phone=ann.phone)).json["merchant_fee_bps"] is None
    entries = await admin.audit(type="merchants.set", user=str(ann.user.id))
    assert [entry["data"]["after"]["merchant_fee_bps"] for entry in entries] == [None, 250, None]
    assert await owner.fetchval("SELECT merchant_since IS NOT NULL FROM users WHERE id = $1", ann.user.id)
    # Whoever is a merchant hears of it.
    told = await owner.fetchval(
        "SELECT count(*) FROM outbox_events WHERE event_type = 'merchants.set' AND principal_id = $1",
        ann.user.principal_id,
    )
    assert told == 2


async def test_merchants_that_cannot_be(admin: Administrator, person: MakePerson) -> None:
    ann = await person()
    path = f"/admin/merchants/{ann.user.id}/set"
    for body in ({"merchant_fee_bps": -1}, {"merchant_fee_bps": 10_001}, {"merchant_status": "vip"}):
        assert (await admin.post(path, body)).status == 422
    assert (await admin.post(f"/admin/merchants/{uuid4()}/set")).refusal == (404, "User not found")
    said = await admin.post("/admin/merchants/x/set")
    assert said.status == 422
    assert [error["loc"] for error in said.json["detail"]] == [["path", "user_id"]]


# --- KYC


async def test_kyc_review(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, bob = await person(), await person(merchant=True)
    for who in (ann, bob):
        await owner.execute("UPDATE users SET kyc_status = 'pending' WHERE id = $1", who.user.id)
    first = (await admin.get("/admin/kyc", limit="1")).json
    assert [item["user_id"] for item in first["items"]] == [str(ann.user.id)]
    rest = (await admin.get("/admin/kyc", limit="1", after=first["next"])).json
    assert ([item["user_id"] for item in rest["items"]], rest["next"]) == ([str(bob.user.id)], None)
    path = f"/admin/kyc/{ann.user.id}/review"
    for _ in range(2):
        said = await admin.post(path, {"decision": "approve", "level": 2})
        assert said.json == {"detail": "approved", "kyc_level": 2}
    assert (await admin.post(f"/admin/kyc/{bob.user.id}/review", {"decision": "reject"})).status == 422
    said = await admin.post(
        f"/admin/kyc/{bob.user.id}/review", {"decision": "reject", "reason": "the picture is blurred"}
    )
    assert said.json == {"detail": "rejected", "kyc_level": 0}
    assert (await admin.get("/admin/kyc")).json == {"items": [], "next": None}
    (entry,) = await admin.audit(type="kyc.review", user=str(bob.user.id))
    assert entry["data"]["reason"] == "the picture is blurred"
    assert (await admin.post(f"/admin/kyc/{bob.user.id}/review", {"decision": "approve"})).refusal == (
        409,
        "KYC not pending",
    )
    assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE event_type = 'kyc.review'") == 1
    assert (await admin.post(f"/admin/kyc/{uuid4()}/review", {"decision": "approve"})).status == 404


async def test_two_reviewers_at_once(admin: Administrator, person: MakePerson, owner: Any) -> None:
    """Whoever comes second sees what the first has decided: one decision of two is written, not both."""
    for _ in range(5):
        ann = await person()
        await owner.execute("UPDATE users SET kyc_status = 'pending' WHERE id = $1", ann.user.id)
        path = f"/admin/kyc/{ann.user.id}/review"
        said = await asyncio.gather(
            *(admin.post(path, {"decision": "reject", "reason": "no"}) for _ in range(4))
        )
        assert {one.status for one in said} == {200}
        assert len(await admin.audit(type="kyc.review", user=str(ann.user.id))) == 1


# --- Frozen wallets, ended sign-ins


async def test_freeze(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person(balance=1_000)
    path, reason = f"/admin/wallets/{ann.user.id}", {"reason": "stolen phone"}
    assert (await admin.post(f"{path}/freeze")).status == 422
    assert (await admin.post(f"{path}/freeze", reason)).json == {"detail": "frozen"}
    assert (await admin.post(f"{path}/freeze", reason)).json == {"detail": "already frozen"}
    for payer, payee in ((ann, bob), (bob, ann)):
        body = {"to_phone": payee.phone, "amount_cents": 1, "idempotency_key": "k"}
        assert (await payer.post("/wallet/transfer", body)).refusal == (403, "Wallet frozen")
    assert (await ann.get("/wallet")).status == 200
    assert (await admin.post(f"{path}/unfreeze", reason)).json == {"detail": "active"}
    assert (await admin.post(f"{path}/unfreeze", reason)).json == {"detail": "already active"}
    body = {"to_phone": bob.phone, "amount_cents": 1, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", body)).status == 200
    entries = await admin.audit(user=str(ann.user.id), actor="admin")
    assert [(entry["type"], entry["data"]["reason"]) for entry in entries] == [
        ("wallet.unfreeze", "stolen phone"),
        ("wallet.freeze", "stolen phone"),
    ]
    assert (await admin.post(f"/admin/wallets/{uuid4()}/freeze", reason)).refusal == (404, "User not found")


async def test_a_frozen_wallet_pays_no_cash_out(admin: Administrator, person: MakePerson) -> None:
    """The money is set aside already, and stays there: who stole the phone gets no notes for it."""
    ann, agent = await person(balance=1_000), await person(agent=True)
    request_id = (await ann.post("/cash/cashout/request", {"amount_cents": 600})).json["id"]
    path = f"/admin/wallets/{ann.user.id}"
    await admin.post(f"{path}/freeze", {"reason": "stolen phone"})
    accept = f"/cash/requests/{request_id}/accept"
    assert (await agent.post(accept)).refusal == (403, "Wallet frozen")
    assert (await ann.balance(), await agent.balance()) == (1_000, 0)
    await admin.post(f"{path}/unfreeze", {"reason": "found again"})
    assert (await agent.post(accept)).json == {"detail": "completed"}
    assert (await ann.balance(), await agent.balance()) == (400, 600)


async def test_freezes_at_once_are_one(admin: Administrator, person: MakePerson) -> None:
    ann = await person(balance=100)
    path = f"/admin/wallets/{ann.user.id}/freeze"
    said = await asyncio.gather(*(admin.post(path, {"reason": "x"}) for _ in range(8)))
    assert sorted(one.json["detail"] for one in said) == ["already frozen"] * 7 + ["frozen"]
    assert len(await admin.audit(type="wallet.freeze")) == 1


async def test_end_sign_ins(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, bob = await person(), await person()
    await owner.execute(
        "INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 day')",
        ids.new_uuid(),
        ann.user.id,
    )
    assert (await ann.get("/wallet")).status == 200
    said = await admin.ask("POST", f"/admin/users/{ann.user.id}/sign_out")
    assert said.json == {"detail": "signed out", "sessions": 1}
    assert (await ann.get("/wallet")).refusal == (401, "Invalid token")
    assert (await bob.get("/wallet")).status == 200
    assert await owner.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == 0
    (entry,) = await admin.audit(type="auth.sign_out_all")
    assert entry["user_id"] == str(ann.user.id)
    assert (await admin.post(f"/admin/users/{uuid4()}/sign_out")).refusal == (404, "User not found")


# --- Credits


async def test_airdrop(admin: Administrator, person: MakePerson) -> None:
    people = [await person(merchant=number == 0) for number in range(5)]
    first = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 500, "limit": 2, "offset": 1})
    assert first.body == b'{"processed":2,"credited":2,"skipped":0,"amount_cents":500,"limit":2,"offset":1}'
    said = await admin.ask("POST", "/admin/airdrop_starting_credit?amount_cents=700")
    assert said.json == {
        "processed": 5,
        "credited": 3,
        "skipped": 2,
        "amount_cents": 700,
        "limit": 10_000,
        "offset": 0,
    }
    assert [await one.balance() for one in people] == [700, 500, 500, 700, 700]
    again = (await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 700})).json
    assert (again["credited"], again["skipped"]) == (0, 5)
    assert len(await admin.audit(type="wallet.airdrop.admin")) == 5
    behind = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 1, "offset": 99})
    assert behind.json["processed"] == 0


async def test_airdrop_in_batches_and_from_two_sides(
    admin: Administrator, elsewhere: ApiClient, person: MakePerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.payables.credits.BATCH", 3)
    people = [await person() for _ in range(10)]
    body = {"amount_cents": 100}
    said = await asyncio.gather(
        *(
            one.post("/admin/airdrop_starting_credit", body)
            for one in (admin, Administrator(elsewhere), admin, Administrator(elsewhere))
        )
    )
    assert [one.json["processed"] for one in said] == [10] * 4
    assert sum(one.json["credited"] for one in said) == 10
    assert {await one.balance() for one in people} == {100}


async def test_airdrop_of_nothing(admin: Administrator, person: MakePerson) -> None:
    await person()
    # STARTING_CREDIT_CENTS is 0 here.
    for body in ({}, {"amount_cents": 0}, {"amount_cents": -5}):
        said = await admin.post("/admin/airdrop_starting_credit", body)
        assert said.body == b'{"processed":0,"credited":0,"skipped":0,"amount_cents":0}'
    for body in ({"limit": 0}, {"limit": 50_001}, {"offset": -1}, {"amount_cents": 2**62}):
        assert (await admin.post("/admin/airdrop_starting_credit", body)).status == 422


async def test_airdrop_leaves_frozen_wallets_out(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(), await person()
    await admin.post(f"/admin/wallets/{ann.user.id}/freeze", {"reason": "x"})
    said = await admin.post("/admin/airdrop_starting_credit", {"amount_cents": 5})
    assert (said.json["credited"], said.json["skipped"]) == (1, 1)
    assert (await ann.balance(), await bob.balance()) == (0, 5)


async def test_seed_demo_user(admin: Administrator, wallets: ApiClient) -> None:
    body = {
        "phone": "+963955000111",
        "name": "Demo",
        "starting_balance_cents": 900,
        "kyc_level": 2,
        "is_merchant": True,
        "merchant_fee_bps": 100,
    }
    first = await admin.post("/admin/seed_demo_user", body)
    assert list(first.json) == ["access_token", "token_type", "user", "wallet"]
    assert first.json["user"] | {"id": ""} == {
        "id": "",
        "phone": "+963955000111",
        "name": "Demo",
        "is_merchant": True,
        "kyc_level": 2,
        "kyc_status": "approved",
    }
    assert first.json["wallet"]["balance_cents"] == 900
    again = await admin.post("/admin/seed_demo_user", body)
    assert again.json["wallet"] == first.json["wallet"]
    more = await admin.post("/admin/seed_demo_user", body | {"starting_balance_cents": 50})
    assert more.json["wallet"]["balance_cents"] == 950
    signed_in = Person(wallets, None, first.json["access_token"])
    assert (await signed_in.get("/wallet")).json["wallet"]["balance_cents"] == 950
    for bad in ({"phone": "x"}, {"kyc_level": 3}, {"starting_balance_cents": -1}, {"kyc_status": "vip"}):
        assert (await admin.post("/admin/seed_demo_user", body | bad)).status == 422


async def test_no_demo_users_in_production(settings: Settings) -> None:
    changed = settings.model_copy(update={"env": "prod"})
    async with (
        open_service(changed) as service,
        TestClient(TestServer(create_app(changed, service))) as client,
    ):
        said = await Administrator(client).post("/admin/seed_demo_user", {"phone": "+963955000111"})
        assert said.refusal == (403, "Not allowed")
