"""Codes paid by card on the payment page, over the simulator: paid once, and money that comes too late goes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from core.errors import Refusal
from core.payments import refunds
from core.payments.payments import find
from core.payments.resolving import ask_again, list_refunds
from core.payments.states import State
from core.payments.writing import Report
from core.providers.protocol import Sight, Standing
from core.settings import Settings
from handlers.http.parts import PARTS
from handlers.simulator.site import Simulator
from tests.core.providers.scenes import serving
from tests.handlers.pay_page.page_reader import Browser, Page, link, qr, strict
from tests.handlers.wallets.conftest import ApiClient, MakePerson, OpenBrowser, Person, new_key


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with serving(Simulator().application()) as url:
        yield url


@pytest.fixture
def settings(settings: Settings, simulator: str) -> Settings:
    return settings.model_copy(
        update={"simulator_url": simulator, "pay_page_cards": True, "merchant_fee_bps": 100}
    )


async def pay_at(page: Page) -> None:
    """Pay on the provider's page, to which this one leads."""
    url = next(
        attributes["href"] for tag, attributes in page.elements if attributes.get("rel") == "noreferrer"
    )
    async with aiohttp.ClientSession() as payer, payer.post(str(url), data={"outcome": "paid"}) as done:
        assert done.status == 200


async def look(client: ApiClient, owner: Any) -> None:
    """Ask the provider about everything, as workers do."""
    payments = client.app[PARTS].payments
    for row in await owner.fetch(
        "SELECT payment_id, id FROM payment_attempts WHERE next_look_at IS NOT NULL"
    ):
        await payments.look_at(row["payment_id"], row["id"], "reconcile")


async def card_page(anns: Browser, code: str) -> Page:
    page = await anns.send(await anns.get(f"/pay/{code}"), "card")
    strict(page, "http://127.0.0.1")
    assert (page.status, page.heading) == (200, "Pay by card")
    return page


@pytest.mark.parametrize("make", [link, qr])
async def test_a_code_is_paid_by_card_without_an_account(
    make: Callable[[Person, int], Awaitable[str]], shop: Person, browser: OpenBrowser, owner: Any
) -> None:
    code, anns = await make(shop, 10_000), browser()
    page = await card_page(anns, code)
    assert (await anns.get(f"{page.path}x")).path == f"/pay/{code}"
    await pay_at(page)
    await look(shop.client, owner)
    done = await anns.get(page.path)
    strict(done)
    assert (done.heading, "SYP\u00a0100.00 paid to Corner shop" in done.words) == ("Paid", True)
    # The payee's fee is that of a payment from a wallet; the provider's is the platform's.
    assert await shop.balance() == 9_900
    assert (await anns.get(f"/pay/{code}")).heading == "Paid already"
    codes = await owner.fetch("SELECT balance FROM accounts WHERE code LIKE 'system:payments_collected:%'")
    assert [row["balance"] for row in codes] == [-250]


async def test_a_code_that_is_paid_by_wallet_and_two_cards_is_paid_once_and_the_rest_goes_back(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    payer, code = await person(balance=10_000, kyc=1), await link(shop, 10_000)
    visitors = [browser(), browser()]
    pages = [await card_page(each, code) for each in visitors]
    for page in pages:
        await pay_at(page)
    rows = await owner.fetch("SELECT payment_id, id FROM payment_attempts")
    payments = shop.client.app[PARTS].payments
    wallet = payer.post("/payments/links/pay", {"code": f"LINK:v1;code={code}", "idempotency_key": new_key()})
    looks = [asyncio.create_task(payments.look_at(row["payment_id"], row["id"], "reconcile")) for row in rows]
    said = await wallet
    await asyncio.gather(*looks)
    # One of the three has paid; each other card gets its money back.
    assert await shop.balance() == 9_900
    returned = [
        one
        for row in rows
        if (one := await refunds.find_refund(payments, row["payment_id"], "code_not_payable"))
    ]
    assert len(returned) == (2 if said.status == 200 else 1)
    await owner.execute("UPDATE payment_refunds SET next_look_at = now() - interval '1 s'")
    await refunds.step(payments)
    for one in returned:
        payment = await find(payments.database, one.payment_id)
        assert (payment.paid, payment.refunded) == (10_000, 10_000)
    texts = [(await each.get(page.path)).words for each, page in zip(visitors, pages, strict=True)]
    assert sum("Your money goes back to your card." in text for text in texts) == len(returned)


async def test_a_card_that_does_not_take_its_money_back_waits_for_a_person(
    shop: Person, browser: OpenBrowser, owner: Any, simulator: str
) -> None:
    code, anns = await link(shop, 10_000), browser()
    page = await card_page(anns, code)
    await pay_at(page)
    await owner.execute("UPDATE payables SET state = 'canceled' WHERE state = 'open'")
    await look(shop.client, owner)
    payments = shop.client.app[PARTS].payments
    payment_id = await owner.fetchval("SELECT id FROM payments")

    async def give_back(*rules: str) -> str:
        async with aiohttp.ClientSession() as person:
            body = {"rules": [{"fault": rule, "share": 1} for rule in rules]}
            async with person.put(f"{simulator}/faults", json=body) as told:
                assert told.status == 200, await told.text()
        await owner.execute("UPDATE payment_refunds SET next_look_at = now() WHERE next_look_at IS NOT NULL")
        await refunds.step(payments)
        return (await anns.get(page.path)).words

    async def waiting() -> list[str]:
        return [one.request_id for one in await list_refunds(payments.database, before=None, limit=10)]

    async def again(request_id: str) -> str:
        return (await ask_again(payments, payment_id, request_id, "Ann Lee", "OPS-17")).state

    assert "A person looks at it." in await give_back("refund:decline")
    assert await waiting() == ["code_not_payable"]
    assert await again("code_not_payable") == "failed"
    (second,) = await waiting()
    assert second.startswith("code_not_payable:")
    assert "A person looks at it." in await give_back()
    assert await again(second) == "done"
    assert await waiting() == []
    assert "Your money goes back to your card." in (await anns.get(page.path)).words
    assert [row["balance"] for row in await owner.fetch(
        "SELECT balance FROM accounts WHERE code LIKE 'system:payments_collected:%'"
    )] == [-250]  # fmt: skip
    for wrong in (second, "code_not_payable", "another"):
        with pytest.raises(Refusal):
            await again(wrong)


async def test_money_that_has_gone_back_already_pays_no_code(
    shop: Person, browser: OpenBrowser, owner: Any
) -> None:
    page = await card_page(browser(), await link(shop, 10_000))
    await pay_at(page)
    payments = shop.client.app[PARTS].payments
    row = await owner.fetchrow("SELECT payment_id, id FROM payment_attempts")
    gone = Report(Sight(Standing.PAID, amount=10_000, currency="SYP", refunded=10_000), "reconcile")
    await payments.applier.apply(row["payment_id"], row["id"], gone)
    payment = await find(payments.database, row["payment_id"])
    assert (payment.state, payment.refunded, await shop.balance()) == (State.PAID, 10_000, 0)
    assert await refunds.find_refund(payments, payment.id, "code_not_payable") is None


async def test_a_form_asks_once_and_for_codes_over_an_amount_alone(
    shop: Person, browser: OpenBrowser, owner: Any
) -> None:
    anns, code = browser(), await qr(shop, 100, "static")
    assert "Pay by card" not in (await anns.get(f"/pay/{code}")).words
    code = await link(shop, 500)
    start = await anns.get(f"/pay/{code}")
    form = start.form("card")
    # A form of nobody, a key of nobody: nothing is asked for.
    assert (await anns.post(form.action, form.fields | {"form": "x"})).status == 403
    assert (await anns.post(form.action, form.fields | {"card_key": "x"})).path == f"/pay/{code}"
    assert await owner.fetchval("SELECT count(*) FROM payments") == 0
    # A second press is the same payment.
    for _ in range(2):
        await anns.send(start, "card")
    assert await owner.fetchval("SELECT count(*) FROM payments") == 1
