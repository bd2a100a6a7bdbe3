"""Becoming a merchant."""

import asyncio
from typing import Any

import pytest

from tests.handlers.wallets.conftest import MakePerson, Person


async def test_status(person: MakePerson, nobody: Person) -> None:
    said = await (await person()).get("/payments/merchant/status")
    assert said.body == b'{"is_merchant":false,"merchant_status":"none"}'
    said = await (await person(merchant=True)).get("/payments/merchant/status")
    assert said.body == b'{"is_merchant":true,"merchant_status":"approved"}'
    assert (await nobody.get("/payments/merchant/status")).refusal == (403, "Not authenticated")


async def test_applying(person: MakePerson, owner: Any) -> None:
    ann = await person()
    assert (await ann.post("/payments/merchant/apply")).refusal == (400, "KYC approval required")
    ann = await person(kyc=1)
    said = await asyncio.gather(*(ann.post("/payments/merchant/apply") for _ in range(4)))
    assert {one.body for one in said} == {b'{"detail":"application received"}'}
    status = await ann.get("/payments/merchant/status")
    assert status.json == {"is_merchant": False, "merchant_status": "applied"}
    audit = "SELECT count(*) FROM audit_events WHERE type = 'merchants.apply' AND user_id = $1"
    assert await owner.fetchval(audit, ann.user.id) == 1
    shop = await person(kyc=1, merchant=True)
    assert (await shop.post("/payments/merchant/apply")).json == {"detail": "already merchant"}


async def test_whoever_was_rejected_applies_again_and_whoever_was_suspended_does_not(
    person: MakePerson, owner: Any
) -> None:
    ann = await person(kyc=1)
    await owner.execute("UPDATE users SET merchant_status = 'rejected' WHERE id = $1", ann.user.id)
    assert (await ann.post("/payments/merchant/apply")).status == 200
    await owner.execute("UPDATE users SET merchant_status = 'suspended' WHERE id = $1", ann.user.id)
    assert (await ann.post("/payments/merchant/apply")).refusal == (403, "Not allowed")


async def test_nobody_appoints_themselves_outside_development(person: MakePerson) -> None:
    ann = await person()
    assert (await ann.post("/payments/dev/become_merchant")).refusal == (403, "Not allowed")
    assert (await ann.get("/payments/merchant/status")).json["is_merchant"] is False


@pytest.mark.parametrize("changed", [{"env": "dev"}])
async def test_in_development_one_does(person: MakePerson, owner: Any) -> None:
    ann = await person(kyc=1)
    for _ in range(2):
        said = await ann.post("/payments/dev/become_merchant")
        assert said.body == b'{"detail":"merchant enabled"}'
    status = await ann.get("/payments/merchant/status")
    assert status.json == {"is_merchant": True, "merchant_status": "none"}
    assert await owner.fetchval("SELECT count(*) FROM audit_events WHERE type = 'merchants.enable'") == 1
    assert (await ann.post("/payments/merchant/qr", {"amount_cents": 1})).status == 200
