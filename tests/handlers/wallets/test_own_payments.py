"""Who pays themselves loses the fee at most, but has to have what is paid: no completed payment of money not there."""

import pytest

from core.settings import Settings
from tests.handlers.wallets.conftest import MakePerson, Person, new_key

pytestmark = pytest.mark.shared


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"merchant_fee_bps": 100})


async def pay_link(shop: Person) -> tuple[int, str] | None:
    code = (await shop.post("/payments/links", {"amount_cents": 10_000})).json["code"]
    said = await shop.post("/payments/links/pay", {"code": code, "idempotency_key": new_key()})
    return None if said.status == 200 else said.refusal


async def pay_qr(shop: Person) -> tuple[int, str] | None:
    code = (await shop.post("/payments/merchant/qr", {"amount_cents": 10_000})).json["code"]
    said = await shop.post("/payments/merchant/pay", {"code": code, "idempotency_key": new_key()})
    return None if said.status == 200 else said.refusal


async def test_codes_of_ones_own(person: MakePerson) -> None:
    shop = await person(balance=9_999, kyc=1, merchant=True)
    for pay in (pay_link, pay_qr):
        assert await pay(shop) == (400, "Insufficient balance")
    await shop.top_up(101)
    for pay in (pay_link, pay_qr):
        assert await pay(shop) is None
    assert await shop.balance() == 10_100 - 200


async def test_a_request_to_oneself(person: MakePerson) -> None:
    shop = await person(balance=99, merchant=True)
    asked = {"amount_cents": 100, "code": f"CPM:v1;phone={shop.phone}"}
    request_id = (await shop.post("/payments/merchant/cpm_request", asked)).json["id"]
    accept = f"/requests/{request_id}/accept"
    assert (await shop.post(accept)).refusal == (400, "Insufficient balance")
    await shop.top_up(1)
    assert (await shop.post(accept)).json["detail"] == "accepted"
    assert await shop.balance() == 100


async def test_an_agent_takes_in_no_more_than_they_have(person: MakePerson) -> None:
    agent, customer = await person(balance=99, agent=True), await person()
    request_id = (await customer.post("/cash/cashin/request", {"amount_cents": 100})).json["id"]
    accept = f"/cash/requests/{request_id}/accept"
    own = (await agent.post("/cash/cashin/request", {"amount_cents": 10})).json["id"]
    assert (await agent.post(f"/cash/requests/{own}/accept")).refusal == (403, "Not your own request")
    assert (await agent.post(accept)).refusal == (400, "Agent insufficient balance")
    await agent.top_up(1)
    assert (await agent.post(accept)).json == {"detail": "completed"}
