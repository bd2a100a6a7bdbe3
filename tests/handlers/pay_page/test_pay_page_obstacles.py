"""Obstacles to a payment are said before a message is sent, with the way on, and decided at the payment."""

from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from core.identity import sign_in
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.pay_page.page_reader import Browser, link, qr, strict
from tests.handlers.wallets.conftest import MakePerson, OpenBrowser, Person

pytestmark = pytest.mark.shared

STATE = "UPDATE accounts SET state = $2 WHERE code = $1"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The phones to which a sign-in code was sent."""
    phones: list[str] = []
    send = sign_in.request_code

    async def noted(identity: Any, phone: str, client: Any) -> Any:
        phones.append(phone)
        return await send(identity, phone, client)

    monkeypatch.setattr(sign_in, "request_code", noted)
    return phones


# A change of the payee's wallet, of the payee or of the code: its column, the value that forbids, the value before.
CHANGES = {
    "frozen": ("accounts SET state = $2 WHERE code = (SELECT 'wallet:' || wallet_id FROM users WHERE id = $1)", 1, 0),
    "level": ("users SET kyc_level = $2 WHERE id = $1", 0, 1),
    "suspended": ("users SET merchant_status = $2 WHERE id = $1", "suspended", "approved"),
    "currency": ("payables SET currency = $2 WHERE payee_id = $1", "EUR", "SYP"),
    "canceled": ("payables SET state = $2 WHERE payee_id = $1", "canceled", "open"),
}  # fmt: skip


async def test_a_code_that_nobody_can_pay(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any, sent: list[str]
) -> None:
    payer, anns, bobs = await person(balance=10_000, kyc=1), browser(), browser()
    code = await qr(shop, 1_000)
    start, ready = await anns.get(f"/pay/{code}"), await bobs.sign_in(code, payer.phone)
    sent.clear()
    for change, (statement, bad, good) in CHANGES.items():
        await owner.execute(f"UPDATE {statement}", shop.user.id, bad)
        for page in (
            await anns.get(f"/pay/{code}"),
            await anns.send(start, "phone", phone=payer.phone),
            await bobs.get(f"/pay/{code}"),
            await bobs.send(ready, "confirm"),
        ):
            strict(page)
            assert (page.status, page.forms) == (410 if change == "canceled" else 409, []), change
            assert "/pay" in [attributes.get("href") for tag, attributes in page.elements if tag == "a"]
        await owner.execute(f"UPDATE {statement}", shop.user.id, good)
    assert sent == []
    assert (await bobs.send(ready, "confirm")).heading == "Paid"


async def test_the_payers_money_and_limits(
    shop: Person, person: MakePerson, browser: OpenBrowser, settings: Settings
) -> None:
    poor, anns = await person(balance=10, kyc=1), browser()
    code = await link(shop, 1_000)
    told = await anns.sign_in(code, poor.phone)
    strict(told)
    assert (told.status, told.trouble) == (200, "There is not enough in your wallet. Nothing was paid.")
    assert "You need SYP\u00a09.90 more." in told.words
    assert [form.action for form in told.forms] == [f"/pay/{code}/sign-out"]
    assert f"/pay/{code}" in [attributes.get("href") for tag, attributes in told.elements if tag == "a"]
    await poor.top_up(990)
    ready = await anns.get(f"/pay/{code}")
    assert (await anns.send(ready, "confirm")).heading == "Paid"
    assert (await anns.send(ready, "confirm")).heading == "Paid"
    # A typed amount is held against the same rules before its second look, and stays in its field.
    static = await link(shop)
    refused = await anns.send(await anns.get(f"/pay/{static}"), "amount", amount="1")
    assert (refused.status, refused.form("amount").fields["amount"]) == (400, "1")
    most = settings.kyc_l1_tx_max_cents + 1
    await poor.top_up(2 * most)
    above = await anns.get(f"/pay/{await link(shop, most)}")
    assert above.status == 200
    assert above.trouble.startswith(
        "This is more than you may pay at once. Nothing was paid. At once you may pay up to"
    )
    assert "SYP\u00a05,000,000.00" in above.trouble
    # The day's limit is told with what is left of it.
    tight = settings.model_dump() | {"kyc_l1_daily_max_cents": 1_500}
    async with TestServer(create_app(Settings.model_validate(tight))) as server:
        bobs, bob = Browser(str(server.make_url("/"))), await person(balance=10_000, kyc=1)
        await bobs.pay(await bobs.sign_in(await link(shop, 1_000), bob.phone))
        late = await bobs.get(f"/pay/{await link(shop, 501)}")
        assert late.trouble.endswith("Left for today: SYP\u00a05.00")
        assert "confirm" not in [form.action.rsplit("/", 1)[1] for form in late.forms]
        assert (await bobs.pay(await bobs.get(f"/pay/{await link(shop, 500)}"))).heading == "Paid"
        await bobs.close()


async def test_the_payers_frozen_wallet(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    code = await link(shop, 1_000)
    ready = await anns.sign_in(code, payer.phone)
    await owner.execute(STATE, payer.user.account, 1)
    for page in (await anns.get(f"/pay/{code}"), await anns.send(ready, "confirm")):
        strict(page)
        assert page.trouble == "Your wallet is frozen: no money leaves it. Nothing was paid."
    await owner.execute(STATE, payer.user.account, 0)
    assert (await anns.send(ready, "confirm")).heading == "Paid"


async def test_a_payer_who_is_not_verified_asks_for_it(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    payer, anns = await person(balance=10_000), browser()
    code = await link(shop, 1_000)
    start = await anns.get(f"/pay/{code}")
    assert "Only people whose account is verified can pay here." in start.words
    told = await anns.sign_in(code, payer.phone)
    strict(told)
    assert "must be verified" in told.trouble
    asked = await anns.send(told, "verification")
    assert "You have asked to be verified" in asked.words
    assert "verification" not in [form.action.rsplit("/", 1)[1] for form in asked.forms]
    assert await owner.fetchval("SELECT kyc_status FROM users WHERE id = $1", payer.user.id) == "pending"
    await owner.execute("UPDATE users SET kyc_level = 1 WHERE id = $1", payer.user.id)
    ready = await anns.get(f"/pay/{code}")
    await owner.execute("UPDATE users SET kyc_level = 0 WHERE id = $1", payer.user.id)
    lost = await anns.send(ready, "confirm")
    assert (lost.status, "must be verified" in lost.trouble) == (403, True)
    await owner.execute("UPDATE users SET kyc_level = 1 WHERE id = $1", payer.user.id)
    assert (await anns.send(ready, "confirm")).heading == "Paid"


async def test_in_development_people_verify_themselves_on_the_way(shop: Person, settings: Settings) -> None:
    """The README's own walk: a phone that nobody knows signs in, is verified by a button, and pays."""
    code = await link(shop, 2_550)
    dev = Settings.model_validate(settings.model_dump() | {"env": "dev", "starting_credit_cents": 10_000})
    async with TestServer(create_app(dev)) as server:
        anns = Browser(str(server.make_url("/")))
        told = await anns.sign_in(code, "0944 777 321")
        strict(told)
        assert "you can verify yourself" in told.words
        ready = await anns.send(told, "verification")
        assert ready.trouble == ""
        assert (await anns.send(ready, "confirm")).heading == "Paid"
        await anns.close()
