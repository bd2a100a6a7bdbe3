"""Limits and metrics of payments as a client meets them: sentences, statuses, the causes' order, the round trips."""

import asyncio

import pytest

from core import metrics
from core.settings import Settings
from tests.handlers.wallets.conftest import MakePerson, Person, new_key

pytestmark = pytest.mark.shared


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Small limits, for figures that a person can follow; a test may change them."""
    small = {
        "kyc_l0_tx_max_cents": 100,
        "kyc_l0_daily_max_cents": 250,
        "kyc_l1_tx_max_cents": 1_000,
        "kyc_l1_daily_max_cents": 5_000,
        "fraud_p2p_max_tx_per_hour": 5,
        "fraud_p2p_max_sum_per_hour": 10_000,
    }
    return Settings.model_validate(settings.model_dump() | small | getattr(request, "param", {}))


async def pay(payer: Person, payee: Person, amount: int) -> tuple[int, str]:
    body = {"to_phone": payee.phone, "amount_cents": amount, "idempotency_key": new_key()}
    said = await payer.post("/wallet/transfer", body)
    return (200, "") if said.status == 200 else said.refusal


async def test_kyc_limits_at_their_bounds(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000), await person()
    assert await pay(ann, bob, 101) == (400, "KYC transaction limit exceeded")
    assert [await pay(ann, bob, amount) for amount in (100, 100, 51)] == [
        (200, ""),
        (200, ""),
        (400, "KYC daily limit exceeded"),
    ]
    assert await pay(ann, bob, 50) == (200, "")
    assert await pay(ann, bob, 1) == (400, "KYC daily limit exceeded")
    # What comes in is no use of the limit, and another person has their own.
    assert await pay(bob, ann, 100) == (200, "")
    verified, rich = await person(balance=10_000, kyc=1), await person(balance=10_000, kyc=2)
    assert [await pay(one, bob, 1_000) for one in (verified, rich)] == [(200, "")] * 2
    assert await pay(rich, bob, 1_001) == (400, "KYC transaction limit exceeded")


async def test_velocity_at_its_bounds(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000, kyc=1), await person()
    assert [await pay(ann, bob, 1) for _ in range(5)] == [(200, "")] * 5
    assert await pay(ann, bob, 1) == (429, "Velocity limit")


@pytest.mark.parametrize("settings", [{"fraud_p2p_max_sum_per_hour": 100}], indirect=True)
async def test_velocity_of_the_sum(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000, kyc=1), await person()
    assert [await pay(ann, bob, amount) for amount in (60, 41, 40, 1)] == [
        (200, ""),
        (429, "Velocity limit"),
        (200, ""),
        (429, "Velocity limit"),
    ]


async def test_causes_in_the_contracts_order(person: MakePerson) -> None:
    """Funds, then the KYC limits, then the velocity: of several the first of them is told."""
    ann, bob = await person(balance=50), await person()
    assert await pay(ann, bob, 101) == (400, "Insufficient balance")
    await ann.top_up(1_000)
    assert await pay(ann, bob, 300) == (400, "KYC transaction limit exceeded")


async def test_limits_hold_against_many_at_once(person: MakePerson) -> None:
    ann, bob = await person(balance=10_000), await person()
    said = await asyncio.gather(*(pay(ann, bob, 50) for _ in range(20)))
    assert sorted(said).count((200, "")) == 5
    assert await bob.balance() == 250


def _counted(kind: str) -> float:
    text = metrics.render().decode()
    line = f'payments_transfers_total{{kind="{kind}",status="completed"}} '
    return next((float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(line)), 0)


async def test_transfers_are_counted_once(person: MakePerson) -> None:
    before = _counted("topup"), _counted("p2p")
    ann, bob = await person(balance=100), await person()
    body = {"to_phone": bob.phone, "amount_cents": 10, "idempotency_key": "k"}
    for _ in range(3):
        assert (await ann.post("/wallet/transfer", body)).status == 200
    assert await pay(ann, bob, 5_000) != (200, "")
    assert (_counted("topup") - before[0], _counted("p2p") - before[1]) == (1, 1)


@pytest.mark.alone
async def test_a_payment_takes_three_round_trips(person: MakePerson, round_trips: list[str]) -> None:
    ann, bob = await person(balance=100), await person()
    await pay(ann, bob, 1)
    del round_trips[:]
    assert await pay(ann, bob, 1) == (200, "")
    assert round_trips == ["users_by_id", "users_by_phone", "post_with_effects"]
    del round_trips[:]
    assert (await ann.post("/wallet/topup", {"amount_cents": 5, "idempotency_key": "k"})).status == 200
    assert round_trips == ["users_by_id", "post_with_effects"]
