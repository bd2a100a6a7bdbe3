"""Refunds: who may, how much, and never more than was paid, however many ask at once."""

import asyncio
from uuid import UUID

import pytest

from core.ledger.items import operation_id
from core.payables.payments import Payment, post
from core.platform import Platform
from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, Raw, Wait, at_barrier, install, moved
from tests.handlers.wallets.conftest import ADMIN, ApiClient, MakePerson, Person, Said, new_key, told
from tests.invariants import faults


async def pay(payer: Person, payee: Person, amount: int) -> str:
    body = {"to_phone": payee.phone, "amount_cents": amount, "idempotency_key": new_key()}
    said = await payer.post("/wallet/transfer", body)
    assert said.status == 200, said
    transfer_id: str = said.json["transfer_id"]
    return transfer_id


async def pay_with_fee(platform: Platform, payer: Person, payee: Person, amount: int, fee: int) -> UUID:
    """A payment to a merchant, as a QR code's is."""
    payment = Payment(
        id=operation_id(payer.user.principal_id, new_key()),
        principal_id=payer.user.principal_id,
        kind="payments.qr_pay",
        source=payer.user.account,
        target=payee.user.account,
        amount=amount,
        currency="SYP",
        identity=(amount,),
        fee=fee,
        fee_payer=payee.user.account,
        fee_account=await platform.fee_account(),
    )
    return (await post(platform, payment)).transfer_id


@pytest.mark.shared
async def test_refund(person: MakePerson) -> None:
    ann, shop = await person(balance=1_000), await person(merchant=True)
    original = await pay(ann, shop, 600)
    said = await shop.post("/refunds", {"original_transfer_id": original, "amount_cents": 250}, key="k")
    assert said.status == 200, said
    refund_id = said.json["refund_id"]
    assert list(said.json.items()) == [
        ("transfer_id", refund_id),
        ("from_wallet_id", str(shop.user.wallet_id)),
        ("to_wallet_id", str(ann.user.wallet_id)),
        ("amount_cents", 250),
        ("currency_code", "SYP"),
        ("status", "completed"),
        ("refund_id", refund_id),
    ]
    assert (await ann.balance(), await shop.balance()) == (650, 350)

    shown = await shop.get(f"/refunds/{refund_id}")
    assert shown.status == 200
    assert list(shown.json.items())[:5] == [
        ("id", refund_id),
        ("original_transfer_id", original),
        ("amount_cents", 250),
        ("currency_code", "SYP"),
        ("status", "completed"),
    ]
    assert shown.json["created_at"].endswith("Z")
    assert (await ann.get(f"/refunds/{refund_id}")).refusal == (403, "Forbidden")
    assert (await shop.get(f"/refunds/{original}")).refusal == (404, "Not found")
    assert (await shop.get("/refunds/nonsense")).refusal == (404, "Not found")


async def test_event_and_audit(person: MakePerson, owner: Raw) -> None:
    ann, shop = await person(balance=1_000), await person(merchant=True)
    original = await pay(ann, shop, 600)
    body = {"original_transfer_id": original, "amount_cents": 250}
    for _ in range(2):
        assert (await shop.post("/refunds", body, key="k")).status == 200
    events = await owner.fetch(
        "SELECT principal_id, body FROM outbox_events WHERE event_type = 'refunds.create'"
    )
    expected = f'{{"type":"refunds.create","data":{{"original":"{original}","amount_cents":250}}}}'
    assert [(row["principal_id"], row["body"]) for row in events] == [
        (shop.user.principal_id, expected.encode())
    ]
    audit = await owner.fetch("SELECT actor, user_id FROM audit_events WHERE type = 'refunds.create'")
    assert [tuple(row) for row in audit] == [(f"user:{shop.user.id}", shop.user.id)]


@pytest.mark.shared
async def test_parts_until_nothing_is_left(person: MakePerson) -> None:
    ann, bob = await person(balance=1_000), await person(balance=5_000)
    original = await pay(ann, bob, 500)

    async def refund(amount: object) -> object:
        said = await bob.post("/refunds", {"original_transfer_id": original, "amount_cents": amount})
        return said.status if said.status == 200 else said.refusal

    too_much = (400, "Exceeds refundable amount")
    assert await refund(501) == too_much
    assert [await refund(200), await refund("200")] == [200, 200]
    assert await refund(101) == too_much
    assert await refund(100) == 200
    assert await refund(1) == too_much
    assert (await ann.balance(), await bob.balance()) == (1_000, 5_000)


@pytest.mark.shared
async def test_keys(person: MakePerson) -> None:
    ann, bob, eve = await person(balance=1_000), await person(), await person(balance=100)
    original, other = await pay(ann, bob, 500), await pay(ann, eve, 100)
    body = {"original_transfer_id": original, "amount_cents": 500}
    first = await bob.post("/refunds", body, key="same")
    again = await bob.post("/refunds", body, key="same")
    assert (first.status, again.body) == (200, first.body)
    changed = await bob.post("/refunds", {**body, "amount_cents": 1}, key="same")
    assert changed.refusal == (409, "Idempotency-Key conflict for different request")
    theirs = await eve.post("/refunds", {"original_transfer_id": other, "amount_cents": 1}, key="same")
    assert theirs.status == 200
    assert (await bob.post("/refunds", body, key="x" * 65)).refusal == (400, "Idempotency key too long")
    assert (await ann.balance(), await bob.balance()) == (901, 0)


@pytest.mark.shared
async def test_refused_refunds_leave_the_key_free(person: MakePerson) -> None:
    ann, bob, eve = await person(balance=1_000), await person(), await person()
    original = await pay(ann, bob, 500)
    await pay(bob, eve, 400)
    body = {"original_transfer_id": original, "amount_cents": 500}
    assert (await bob.post("/refunds", body, key="k")).refusal == (400, "Insufficient balance")
    await bob.top_up(400)
    assert (await bob.post("/refunds", body, key="k")).status == 200


@pytest.mark.shared
async def test_what_cannot_be_refunded(person: MakePerson, nobody: Person) -> None:
    ann, bob = await person(balance=1_000), await person()
    topup = (await ann.post("/wallet/topup", {"amount_cents": 5, "idempotency_key": "t"})).json["transfer_id"]
    original = await pay(ann, bob, 500)

    async def refused(who: Person, original: object, amount: object = 1) -> tuple[int, str]:
        body = {"original_transfer_id": original, "amount_cents": amount}
        return (await who.post("/refunds", body)).refusal

    assert await refused(ann, topup) == (400, "Invalid original transfer")
    assert await refused(ann, original) == (403, "Not owner of original funds")
    not_found = (404, "Original transfer not found")
    assert await refused(bob, "0b0d5f2e-6f0e-4d0a-9a58-d1a5f4a4a111") == not_found
    assert await refused(bob, "nonsense") == not_found
    for amount in (0, -1, 1.5, "x", None, 2**63):
        assert (await refused(bob, original, amount))[0] == 422
    assert (await refused(bob, 17))[0] == 422
    assert await refused(nobody, original) == (403, "Not authenticated")
    # What has come back is not sent to and fro.
    said = await bob.post("/refunds", {"original_transfer_id": original, "amount_cents": 500})
    assert await refused(ann, said.json["refund_id"]) == (400, "Invalid original transfer")


async def test_the_fee_stays(person: MakePerson, platform: Platform) -> None:
    ann, shop = await person(balance=1_000), await person(merchant=True, balance=15)
    original = await pay_with_fee(platform, ann, shop, 1_000, 15)
    said = await shop.post("/refunds", {"original_transfer_id": str(original), "amount_cents": 1_000})
    assert said.status == 200, said
    assert (await ann.balance(), await shop.balance()) == (1_000, 0)


class TestReturnedFee:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.model_validate(settings.model_dump() | {"refund_fee_policy": "return"})

    async def test_in_proportion(self, person: MakePerson, platform: Platform) -> None:
        ann, shop = await person(balance=1_000), await person(merchant=True)
        original = await pay_with_fee(platform, ann, shop, 1_000, 15)
        standings = []
        for amount in (333, 333, 334):
            body = {"original_transfer_id": str(original), "amount_cents": amount}
            assert (await shop.post("/refunds", body)).json["amount_cents"] == amount
            standings.append((await ann.balance(), await shop.balance()))
        assert standings[-1] == (1_000, 0)
        # A third of the fee came back with the first third, less what rounding leaves for later.
        assert standings[0] in {(333, 985 - 333 + 4), (333, 985 - 333 + 5)}


async def test_an_administrator_refunds(person: MakePerson, nobody: Person, owner: Raw) -> None:
    ann, shop, eve = await person(balance=1_000), await person(merchant=True), await person()
    original = await pay(ann, shop, 600)

    async def refund(amount: object, key: str | None = None, of: object = original) -> Said:
        body = {"original_transfer_id": of, "amount_cents": amount}
        headers = {"X-Admin-Token": ADMIN} | ({} if key is None else {"Idempotency-Key": key})
        return await nobody.ask("POST", "/admin/refunds", body, headers=headers)

    await pay(shop, eve, 1)
    assert (await refund(600, "k")).refusal == (400, "Insufficient merchant balance")
    await shop.top_up(1)
    first = await refund(600, "k")
    assert (first.status, list(first.json)) == (200, ["transfer_id", "refund_id"])
    assert (await refund(600, "k")).body == first.body
    assert (await refund(1)).refusal == (400, "Exceeds refundable amount")
    for amount in (0, -1, 2**63):
        assert (await refund(amount)).refusal == (400, "Invalid amount")
    assert (await refund("x")).status == 422
    assert (await refund(1, of="nonsense")).refusal == (404, "Original transfer not found")
    assert (await refund(1, of=first.json["refund_id"])).refusal == (400, "Invalid original transfer")
    assert (await ann.balance(), await shop.balance()) == (1_000, 0)
    audit = await owner.fetch("SELECT actor, user_id FROM audit_events WHERE type = 'refunds.create'")
    assert [tuple(row) for row in audit] == [("admin", shop.user.id)]
    assert [event for event, _ in await told(owner, shop)][-1] == "refunds.create"
    said = await nobody.ask("POST", "/admin/refunds", {})
    assert said.refusal == (401, "Admin token invalid")


async def test_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    ann, bob = await person(balance=1_000), await person()
    original = await pay(ann, bob, 500)
    round_trips.clear()
    said = await bob.post("/refunds", {"original_transfer_id": original, "amount_cents": 1}, key="k")
    assert said.status == 200
    assert len(round_trips) <= 3, round_trips


async def test_sixteen_at_once_in_two_processes(person: MakePerson, elsewhere: ApiClient) -> None:
    ann, bob = await person(balance=1_000), await person(balance=10_000)
    original = await pay(ann, bob, 1_000)
    body = {"original_transfer_id": original, "amount_cents": 100}
    bobs = [bob, bob.at(elsewhere)] * 8
    said = await asyncio.gather(*(one.post("/refunds", body, key=new_key()) for one in bobs))
    refused = [one.refusal for one in said if one.status != 200]
    assert refused == [(400, "Exceeds refundable amount")] * 6
    assert (await ann.balance(), await bob.balance()) == (1_000, 10_000)


async def test_two_refunds_at_once(
    person: MakePerson, elsewhere: ApiClient, owner: Raw, eventually: Wait, settings: Settings
) -> None:
    ann, bob = await person(balance=2_000), await person(balance=10_000)
    bobs = [bob, bob.at(elsewhere)]

    async def both() -> list[int]:
        body = {"original_transfer_id": await pay(ann, bob, 1_000), "amount_cents": 1_000}
        await install(owner, change)
        calls = [one.post("/refunds", body) for one in bobs]
        statuses = sorted(said.status for said in await at_barrier(owner, calls, eventually))
        await install(owner)
        return statuses

    # What was refunded is read before the lock, and so before the other one has committed.
    old, new = moved(
        "    IF has_targets THEN\n        SELECT\n", "    -- Keys are looked at before the state", LOCK
    )
    change = (old, new.replace(LOCK, BARRIER + "\n" + LOCK))
    assert await both() == [200, 200]
    assert list(await faults(str(settings.database_url))) == [
        "a transfer was reversed for more than it was, or what was noted of it is wrong"
    ]
    # The harm is shown; what follows is looked at in clean books.
    await owner.execute("UPDATE transfers SET target = NULL")
    await owner.execute("DELETE FROM reversed_amounts")
    change = (LOCK, BARRIER + "\n" + LOCK)
    assert await both() == [200, 400]
