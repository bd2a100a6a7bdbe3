"""Refunds by an administrator: capped with those of the receiver, once for a key, told and audited."""

import asyncio
from typing import Any
from uuid import uuid4

from tests.handlers.wallets.conftest import Administrator, ApiClient, MakePerson, Person, new_key, told


async def paid(payer: Person, payee: Person, amount: int) -> str:
    body = {"to_phone": payee.phone, "amount_cents": amount, "idempotency_key": new_key()}
    said = await payer.post("/wallet/transfer", body)
    assert said.status == 200, said
    return str(said.json["transfer_id"])


async def test_refund(admin: Administrator, person: MakePerson, owner: Any) -> None:
    ann, shop = await person(balance=1_000), await person(merchant=True)
    original = await paid(ann, shop, 600)
    body = {"original_transfer_id": original, "amount_cents": "200"}
    said = await admin.post("/admin/refunds", body, key="k")
    assert list(said.json) == ["transfer_id", "refund_id"]
    assert (await admin.post("/admin/refunds", body, key="k")).body == said.body
    other = await admin.post("/admin/refunds", body | {"amount_cents": 201}, key="k")
    assert other.refusal == (409, "Idempotency-Key conflict for different request")
    assert (await ann.balance(), await shop.balance()) == (600, 400)
    # What the receiver gave back counts, too.
    own = await shop.post("/refunds", {"original_transfer_id": original, "amount_cents": 300})
    assert own.status == 200
    assert (await admin.post("/admin/refunds", body)).refusal == (400, "Exceeds refundable amount")
    assert (await admin.post("/admin/refunds", body | {"amount_cents": 100})).status == 200
    assert (await admin.post("/admin/refunds", body | {"amount_cents": 1})).refusal == (
        400,
        "Exceeds refundable amount",
    )
    assert (await ann.balance(), await shop.balance()) == (1_000, 0)
    entries = await admin.audit(type="refunds.create", actor="admin")
    assert [entry["data"]["amount_cents"] for entry in entries] == [100, 200]
    events = [data for kind, data in await told(owner, shop) if kind == "refunds.create"]
    assert sorted(data["amount_cents"] for data in events) == [100, 200, 300]


async def test_refunds_that_cannot_be(admin: Administrator, person: MakePerson) -> None:
    ann, bob = await person(balance=100), await person()
    original = await paid(ann, bob, 100)
    await paid(bob, await person(), 60)

    async def refused(amount: Any, original_id: Any = original) -> tuple[int, str]:
        body = {"original_transfer_id": original_id, "amount_cents": amount}
        return (await admin.post("/admin/refunds", body)).refusal

    for amount in (0, -1, 2**62, 2**63):
        assert await refused(amount) == (400, "Invalid amount")
    assert await refused(1, "x") == (404, "Original transfer not found")
    assert await refused(1, str(uuid4())) == (404, "Original transfer not found")
    assert await refused(50) == (400, "Insufficient merchant balance")
    assert (await refused("x"))[0] == 422
    topup = (await ann.get("/wallet/transactions")).json["entries"][-1]["transfer_id"]
    assert await refused(1, topup) == (400, "Invalid original transfer")


async def test_refunds_at_once_never_exceed_the_payment(
    admin: Administrator, elsewhere: ApiClient, person: MakePerson
) -> None:
    ann, bob = await person(balance=1_000), await person(balance=5_000)
    body = {"original_transfer_id": await paid(ann, bob, 1_000), "amount_cents": 300}
    said = await asyncio.gather(
        *(one.post("/admin/refunds", body) for _ in range(6) for one in (admin, Administrator(elsewhere)))
    )
    assert [one.status for one in said].count(200) == 3
    assert (await ann.balance(), await bob.balance()) == (900, 5_100)


async def test_one_refund_for_a_key_however_often_at_once(
    admin: Administrator, elsewhere: ApiClient, person: MakePerson
) -> None:
    ann, bob = await person(balance=1_000), await person()
    body = {"original_transfer_id": await paid(ann, bob, 1_000), "amount_cents": 300}
    said = await asyncio.gather(
        *(
            one.post("/admin/refunds", body, key="k")
            for _ in range(5)
            for one in (admin, Administrator(elsewhere))
        )
    )
    assert {one.status for one in said} == {200}
    assert len({one.body for one in said}) == 1
    assert await ann.balance() == 300


async def test_round_trips(admin: Administrator, person: MakePerson, round_trips: list[str]) -> None:
    ann, bob = await person(balance=1_000), await person()
    body = {"original_transfer_id": await paid(ann, bob, 100), "amount_cents": 1}
    del round_trips[:]
    assert (await admin.post("/admin/refunds", body)).status == 200
    assert len(round_trips) == 3, round_trips
