"""Top-ups by card: from the request to the money, over the simulator and across sockets."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from core.payments.payments import find
from core.settings import Settings
from handlers.http.parts import PARTS
from handlers.simulator.site import Simulator
from tests.core.providers.scenes import serving
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person, new_key


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with serving(Simulator().application()) as url:
        yield url


@pytest.fixture
def settings(settings: Settings, simulator: str) -> Settings:
    return settings.model_copy(update={"simulator_url": simulator})


async def look(client: ApiClient, topup: str) -> None:
    """Ask the provider, as a worker does."""
    payments = client.app[PARTS].payments
    payment = await find(payments.database, UUID(topup))
    await payments.look_at(payment.id, payment.latest.id, "reconcile")


async def start(person: Person, key: str, amount: int = 10_000) -> tuple[int, Any]:
    said = await person.post("/wallet/topup/card", {"amount_cents": amount, "idempotency_key": key})
    return said.status, said.json


async def test_a_card_pays_into_the_wallet_of_the_user_who_asked(person: MakePerson) -> None:
    ann, bob, key = await person(), await person(), new_key()
    status, made = await start(ann, key)
    assert (status, made["state"], made["amount_cents"]) == (200, "pending", 10_000)
    path = f"/wallet/topup/card/{made['id']}"
    # A repetition is the same top-up, another amount under its key none, and nobody else sees it.
    assert await start(ann, key) == (200, made)
    assert (await start(ann, key, 9_999))[0] == 409
    assert (await start(bob, key))[1]["id"] != made["id"]
    assert [(await who.get(path)).status for who in (ann, bob)] == [200, 404]
    assert (await ann.get(f"/wallet/topup/card/{uuid4()}")).status == 404
    assert (await start(ann, "", 5))[0] == 400
    assert (await start(ann, new_key(), 0))[0] == 422
    assert await ann.balance() == 0
    async with aiohttp.ClientSession() as payer, payer.post(made["url"], data={"outcome": "paid"}) as page:
        assert page.status == 200
    for _ in range(2):
        await look(ann.client, made["id"])
    shown = (await ann.get(path)).json
    assert (shown["state"], shown["paid_cents"]) == ("paid", 10_000)
    # The simulator keeps 2.5 %.
    assert (await ann.balance(), await bob.balance()) == (9_750, 0)
    lines = (await ann.get("/wallet/transactions")).json["entries"]
    assert [line["amount_cents_signed"] for line in lines] == [-250, 10_000]


async def test_money_for_a_wallet_that_cannot_take_it_waits_in_suspense(
    person: MakePerson, owner: Any
) -> None:
    ann = await person()
    _, made = await start(ann, new_key())
    await owner.execute("UPDATE accounts SET state = 1 WHERE code = $1", ann.user.account)
    async with aiohttp.ClientSession() as payer, payer.post(made["url"], data={"outcome": "paid"}):
        pass
    await look(ann.client, made["id"])
    assert (await ann.get(f"/wallet/topup/card/{made['id']}")).json["state"] == "paid"
    assert await ann.balance() == 0
    await owner.execute("UPDATE accounts SET state = 0 WHERE code = $1", ann.user.account)
    await look(ann.client, made["id"])
    assert await ann.balance() == 9_750
