"""Payment links: made, paid once or often, with the merchants' fee, replayed, and raced for."""

import asyncio
from typing import Any

import pytest

from core.settings import Settings
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Wait, at_barrier, install
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, Said, new_key, told

# Whoever pays waits there, having read the payable, and holding its lock where the lock is there.
READ = (LOCK, BARRIER + "\n" + LOCK)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"merchant_fee_bps": 150})


async def link(somebody: Person, **body: Any) -> str:
    said = await somebody.post("/payments/links", body)
    assert said.status == 200, said
    code: str = said.json["code"]
    return code


async def pay(somebody: Person, code: str, key: str | None = None, amount: Any = None) -> Said:
    body = {"code": code, "idempotency_key": key or new_key()}
    return await somebody.post(
        "/payments/links/pay", body if amount is None else {**body, "amount_cents": amount}
    )


async def test_dynamic(person: MakePerson, settings: Settings, owner: Any) -> None:
    ann, shop = await person(balance=1_000, kyc=1), await person(kyc=1, merchant=True)
    made = await shop.post("/payments/links", {"amount_cents": 333, "expires_in_minutes": 5})
    assert list(made.json) == ["code", "expires_at"]
    code = made.json["code"]
    assert code.startswith("LINK:v1;code=")
    assert len(code.removeprefix("LINK:v1;code=")) == 32
    assert made.json["expires_at"].endswith("Z")
    # The mobile app sends an amount for those that have one, too: it does not count.
    said = await pay(ann, code, "k", 999)
    assert said.json == {
        "transfer_id": said.json["transfer_id"],
        "from_wallet_id": str(ann.user.wallet_id),
        "to_wallet_id": str(shop.user.wallet_id),
        "amount_cents": 333,
        "currency_code": "SYP",
        "status": "completed",
    }
    assert (await pay(ann, code, "k", 999)).body == said.body
    assert (await pay(ann, code)).refusal == (404, "Link not active")
    # 333 * 1.5 % is 4.995.
    assert (await ann.balance(), await shop.balance()) == (667, 328)
    fees = await person(phone=settings.fee_wallet_phone)
    assert await fees.balance() == 5
    lines = (await shop.get("/wallet/transactions")).json["entries"]
    assert [line["amount_cents_signed"] for line in lines] == [-5, 333]
    assert {line["transfer_id"] for line in lines} == {said.json["transfer_id"]}
    events = await told(owner, shop)
    assert [event for event, _ in events] == ["links.create", "links.pay"]
    assert events[1][1] == {
        "id": events[0][1]["id"],
        "transfer_id": said.json["transfer_id"],
        "amount_cents": 333,
    }


async def test_static(person: MakePerson, owner: Any) -> None:
    ann, bob, shop = await person(balance=1_000, kyc=1), await person(balance=500, kyc=1), await person(kyc=1)
    said = await shop.post("/payments/links", {})
    assert said.json["expires_at"] is None
    code = said.json["code"]
    assert (await pay(ann, code)).refusal == (400, "Amount required for static link")
    first = await pay(ann, code, "k", 100)
    assert (await pay(ann, code, "k", 100)).body == first.body
    assert (await pay(ann, code, "k", 101)).refusal == (409, "Idempotency-Key conflict for different request")
    # The same key of somebody else, and another one of the same payer.
    assert (await pay(bob, code, "k", 200)).status == 200
    assert (await pay(ann, code, amount="100")).status == 200
    assert (await ann.balance(), await bob.balance()) == (800, 300)
    # A payment outlives its link.
    await owner.execute("UPDATE payables SET expires_at = clock_timestamp()")
    assert (await pay(ann, code, "k", 100)).body == first.body
    assert (await pay(ann, code, amount=1)).refusal == (400, "Link expired")
    assert (await pay(ann, code)).refusal == (400, "Link expired")


async def test_fee_of_the_owners_own(person: MakePerson, owner: Any) -> None:
    ann, shop, free = await person(balance=1_000, kyc=1), await person(kyc=1), await person(kyc=1)
    for who, rate in ((shop, 500), (free, 0)):
        await owner.execute("UPDATE users SET merchant_fee_bps = $2 WHERE id = $1", who.user.id, rate)
        assert (await pay(ann, await link(who, amount_cents=100))).status == 200
    assert (await shop.balance(), await free.balance()) == (95, 100)


@pytest.mark.shared
async def test_ones_own_link(person: MakePerson) -> None:
    ann = await person(balance=1_000, kyc=1)
    assert (await pay(ann, await link(ann, amount_cents=1_000))).status == 200
    assert await ann.balance() == 985


async def test_refusals(person: MakePerson, owner: Any) -> None:
    ann, shop, nobody_yet = await person(balance=50, kyc=1), await person(kyc=1), await person(balance=500)
    code = await link(shop, amount_cents=100)
    assert (await nobody_yet.post("/payments/links", {})).refusal == (403, "KYC level required")
    assert (await pay(nobody_yet, code)).refusal == (403, "KYC level required")
    assert (await pay(ann, "PAY:v1;code=x")).refusal == (400, "Invalid link format")
    assert (await pay(ann, "LINK:v1;code=x")).refusal == (404, "Link not active")
    assert (await pay(ann, "LINK:v1;code=")).refusal == (404, "Link not active")
    assert (await pay(ann, code, " ")).refusal == (400, "Missing idempotency key")
    assert (await pay(ann, code, "x" * 65)).refusal == (400, "Idempotency key too long")
    # The header is not read: it is another key of the mobile app's.
    said = await ann.post("/payments/links/pay", {"code": code}, key="k")
    assert said.status == 422
    assert (await pay(ann, code, "k")).refusal == (400, "Insufficient balance")
    await ann.top_up(50)
    assert (await pay(ann, code, "k")).status == 200
    said = await shop.post("/payments/links", {"amount_cents": 100, "currency_code": "USD"})
    assert said.refusal == (400, "Currency mismatch")
    other = await link(shop, amount_cents=100)
    await owner.execute("UPDATE payables SET currency = 'USD' WHERE code = $1", other.partition("=")[2])
    assert (await pay(ann, other)).refusal == (400, "Currency mismatch")
    for bad in ({"amount_cents": 0}, {"expires_in_minutes": 10_081}, {"currency_code": "syp"}):
        assert (await shop.post("/payments/links", bad)).status == 422
    # A code of another kind is no link.
    await owner.execute(
        """
        INSERT INTO payables (id, kind, code, payee_id, amount, currency)
        VALUES (gen_random_uuid(), 'qr', 'abc', $1, 100, 'SYP')
        """,
        shop.user.id,
    )
    assert (await pay(ann, "LINK:v1;code=abc")).refusal == (404, "Link not active")
    assert await ann.balance() == 0


@pytest.mark.shared
async def test_a_key_of_another_operation(person: MakePerson) -> None:
    ann, shop = await person(balance=1_000, kyc=1), await person(kyc=1)
    body = {"to_phone": shop.phone, "amount_cents": 100, "idempotency_key": "k"}
    assert (await ann.post("/wallet/transfer", body)).status == 200
    code = await link(shop, amount_cents=100)
    assert (await pay(ann, code, "k")).refusal == (409, "Idempotency-Key conflict for different request")
    assert await ann.balance() == 900


async def test_paying_takes_two_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    ann, shop = await person(balance=1_000, kyc=1), await person(kyc=1, merchant=True)
    assert (
        await pay(ann, await link(shop, amount_cents=100))
    ).status == 200  # the fee wallet is known from now on
    code = await link(shop, amount_cents=100)
    round_trips.clear()
    assert (await pay(ann, code)).status == 200
    assert round_trips == ["payers_and_payables", "post_with_effects"]


# --- Races


async def test_many_pay_a_dynamic_link(person: MakePerson, elsewhere: ApiClient) -> None:
    shop = await person(kyc=1)
    payers = [await person(balance=1_000, kyc=1) for _ in range(4)]
    code = await link(shop, amount_cents=100)
    said = await asyncio.gather(
        *(pay(side, code) for _ in range(4) for payer in payers for side in (payer, payer.at(elsewhere)))
    )
    assert sorted(one.status for one in said) == [200] + [404] * 31
    assert sum([await payer.balance() for payer in payers]) == 3_900
    assert await shop.balance() == 98


async def test_one_key_many_times(person: MakePerson, elsewhere: ApiClient) -> None:
    ann, shop = await person(balance=1_000, kyc=1), await person(kyc=1)
    code = await link(shop, amount_cents=100)
    said = await asyncio.gather(
        *(pay(side, code, "k") for _ in range(16) for side in (ann, ann.at(elsewhere)))
    )
    assert {one.status for one in said} == {200}
    assert len({one.body for one in said}) == 1
    assert await ann.balance() == 900


async def test_two_pay_staged(person: MakePerson, elsewhere: ApiClient, owner: Any, eventually: Wait) -> None:
    ann, bob, shop = (
        await person(balance=1_000, kyc=1),
        await person(balance=1_000, kyc=1),
        await person(kyc=1),
    )
    await pay(ann, await link(shop, amount_cents=1))
    await pay(bob.at(elsewhere), await link(shop, amount_cents=1))

    async def both() -> list[int]:
        code = await link(shop, amount_cents=100)
        said = await at_barrier(owner, [pay(ann, code), pay(bob.at(elsewhere), code)], eventually)
        return sorted(one.status for one in said)

    await install(owner, (PAYABLE_LOCK, ""), READ)
    assert await both() == [200, 200]
    await install(owner, READ)
    assert await both() == [200, 404]


async def test_static_link_is_paid_by_all(person: MakePerson, elsewhere: ApiClient) -> None:
    ann, bob, shop = (
        await person(balance=1_000, kyc=1),
        await person(balance=1_000, kyc=1),
        await person(kyc=1),
    )
    code = await link(shop)
    said = await asyncio.gather(
        *(pay(side, code, amount=10) for _ in range(16) for side in (ann, bob.at(elsewhere)))
    )
    assert {one.status for one in said} == {200}
    assert (await ann.balance(), await bob.balance()) == (840, 840)


@pytest.mark.shared
async def test_what_is_paid_for(person: MakePerson) -> None:
    """The purpose is the payee's text, without marks that nobody sees; QR codes tell it to their merchant."""
    shop = await person(kyc=1, merchant=True)
    typed = {
        "description": " Two\tchairs\u202e\u200b \u0000".replace("\u0000", "\u0007"),
        "reference": "A-17",
    }
    code = await link(shop, amount_cents=100, **typed)
    assert list((await shop.post("/payments/links", typed)).json) == ["code", "expires_at"]
    assert code.startswith("LINK:v1;code=")
    made = (await shop.post("/payments/merchant/qr", {"amount_cents": 100, **typed})).json
    assert list(made) == ["code", "expires_at"]
    status = (await shop.get("/payments/merchant/qr_status", code=made["code"])).json
    assert (status["description"], status["reference"]) == ("Two chairs", "A-17")
    bare = (await shop.post("/payments/merchant/qr", {"amount_cents": 100, "description": "\u200e"})).json
    status = (await shop.get("/payments/merchant/qr_status", code=bare["code"])).json
    assert list(status) == ["status", "mode", "amount_cents", "currency_code", "expires_at"]
    for field, most in (("description", 512), ("reference", 128)):
        for path in ("/payments/links", "/payments/merchant/qr"):
            said = await shop.post(path, {"amount_cents": 100, field: "x" * (most + 1)})
            assert (said.status, said.json["detail"][0]["loc"]) == (422, ["body", field])
