"""QR codes and many who pay at once: the last unit of a limit, the one payment of a code, the end of its time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.ledger.items import Outcome, operation_id
from core.ledger.poster import Poster
from core.payables import qr
from core.payables.pay import prepare
from core.platform import Platform
from tests.chaos.staging import BARRIER, LOCK, PAYABLE_LOCK, Wait, at_barrier, install
from tests.handlers.wallets.conftest import MakePerson, Person, new_key
from tests.handlers.wallets.test_qr import FEES, code_of, fees, overdue, pay

# Two guards, as they stand in the posting function.
EXPIRY = "IF payable_state[payable] = 0 AND payable_expires[payable] <= now_at THEN"


@pytest.fixture
async def other(platform: Platform) -> AsyncIterator[Poster]:
    """The lane of another process."""
    poster = Poster(platform.database, max_waiting=100)
    yield poster
    await poster.close()


async def post(platform: Platform, poster: Poster, payer: Person, code: str) -> Outcome:
    """Pay a code as a process does whose lane is `poster`."""
    found = await platform.payables.to_pay_by_code(code.removeprefix(qr.PREFIX))
    assert found is not None
    assert found.payee is not None
    order = found.order(payer.user, found.payee, 100, (code, None), object_id=None)
    payment = await prepare(platform, order, operation_id(payer.user.principal_id, new_key()))
    return await poster.submit(payment.posting())


async def test_one_of_many_pays_a_dynamic_code(person: MakePerson) -> None:
    shop = await person(kyc=1, merchant=True)
    payers = [await person(kyc=1, balance=100) for _ in range(32)]
    code = await code_of(shop)
    said = await asyncio.gather(*(pay(payer, code) for payer in payers))
    assert Counter(one.status for one in said) == {200: 1, 404: 31}
    assert await shop.balance() == 100
    assert sorted([await payer.balance() for payer in payers]) == [0, *[100] * 31]


async def test_without_the_lock_a_code_is_paid_twice(
    person: MakePerson, platform: Platform, other: Poster, owner: Any, eventually: Wait
) -> None:
    """Two processes, each with a lane of its own: what keeps them apart is the lock of the payable alone."""
    shop = await person(kyc=1, merchant=True)
    ann, bob = await person(kyc=1, balance=1_000), await person(kyc=1, balance=1_000)

    async def both() -> list[str]:
        code = await code_of(shop)
        calls = [
            post(platform, poster, payer, code)
            for poster, payer in ((platform.ledger.poster, ann), (other, bob))
        ]
        return sorted(outcome.kind.code for outcome in await at_barrier(owner, calls, eventually))

    # Both have read the payable before either one posts.
    await install(owner, (PAYABLE_LOCK, ""), (LOCK, BARRIER + LOCK))
    assert await both() == ["posted", "posted"]
    await install(owner, (PAYABLE_LOCK, BARRIER + PAYABLE_LOCK))
    assert await both() == ["payable_not_open", "posted"]
    assert await shop.balance() == 300


async def test_without_the_look_at_the_clock_a_code_is_paid_too_late(
    person: MakePerson, owner: Any, eventually: Wait
) -> None:
    """Its time ends after the service has looked and before the payment is posted."""
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)

    async def late() -> int:
        calls = [pay(ann, await code_of(shop))]
        (said,) = await at_barrier(owner, calls, eventually, overdue(owner))
        status: int = said.status
        return status

    await install(owner, (PAYABLE_LOCK, BARRIER + PAYABLE_LOCK), (EXPIRY, "IF FALSE THEN"))
    assert await late() == 200
    await install(owner, (PAYABLE_LOCK, BARRIER + PAYABLE_LOCK))
    assert await late() == 400
    assert await shop.balance() == 100


@pytest.mark.parametrize("changed", [FEES])
async def test_many_pay_a_static_code(person: MakePerson, platform: Platform) -> None:
    shop = await person(kyc=1, merchant=True)
    payers = [await person(kyc=1, balance=1_000) for _ in range(8)]
    code = await code_of(shop, mode="static")
    said = await asyncio.gather(*(pay(payer, code, amount_cents=99) for payer in payers for _ in range(8)))
    assert {one.status for one in said} == {200}
    assert (await shop.balance(), await fees(platform)) == (64 * 98, 64 * 1)
    assert {await payer.balance() for payer in payers} == {1_000 - 8 * 99}


@pytest.mark.parametrize("changed", [{"kyc_l1_daily_max_cents": 1_000}])
async def test_never_a_unit_over_the_daily_limit(person: MakePerson) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=10_000)
    code = await code_of(shop, mode="static")
    amounts = [17 + place % 7 for place in range(64)]
    said = await asyncio.gather(*(pay(ann, code, amount_cents=amount) for amount in amounts))
    refused = [one.refusal for one in said if one.status != 200]
    assert set(refused) == {(400, "KYC daily limit exceeded")}
    spent = sum(one.json["amount_cents"] for one in said if one.status == 200)
    assert 1_000 - 23 < spent <= 1_000
    assert await shop.balance() == spent
    last = await pay(ann, code, amount_cents=1_000 - spent) if spent < 1_000 else None
    assert last is None or last.status == 200
    assert (await pay(ann, code, amount_cents=1)).refusal == (400, "KYC daily limit exceeded")


@pytest.mark.parametrize("changed", [{"fraud_qr_max_tx_per_hour": 20}])
async def test_never_a_payment_over_the_velocity_limit(person: MakePerson) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=10_000)
    code = await code_of(shop, mode="static")
    said = await asyncio.gather(*(pay(ann, code, amount_cents=10) for _ in range(64)))
    assert Counter(one.status for one in said) == {200: 20, 429: 44}
    assert {one.refusal for one in said if one.status == 429} == {(429, "Velocity limit")}
    assert await shop.balance() == 200


async def test_paying_against_the_end_of_its_time(person: MakePerson, owner: Any) -> None:
    shop = await person(kyc=1, merchant=True)
    payers = [await person(kyc=1, balance=100) for _ in range(8)]
    codes = [await code_of(shop) for _ in payers]

    async def expire() -> Any:
        return await owner.fetch(
            "UPDATE payables SET expires_at = clock_timestamp(), state = 'expired'"
            " WHERE state = 'open' RETURNING id"
        )

    said, expired = await asyncio.gather(
        asyncio.gather(*(pay(payer, code) for payer, code in zip(payers, codes, strict=True))), expire()
    )
    paid = [one for one in said if one.status == 200]
    assert {one.refusal for one in said if one.status != 200} <= {(400, "QR expired")}
    assert len(paid) + len(expired) == len(codes)
    assert await shop.balance() == 100 * len(paid)


async def test_one_key_many_times_at_once(person: MakePerson) -> None:
    shop, ann = await person(kyc=1, merchant=True), await person(kyc=1, balance=1_000)
    code = await code_of(shop)
    said = await asyncio.gather(*(pay(ann, code, "k") for _ in range(16)))
    assert {(one.status, one.body) for one in said} == {(200, said[0].body)}
    assert await shop.balance() == 100
