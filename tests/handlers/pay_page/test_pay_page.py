"""The payment page, as a browser without scripts meets it: every step, every error, and who may not."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from core.errors import Unavailable
from core.platform import Platform
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.pay_page.page_reader import Browser, link, qr, strict
from tests.handlers.wallets.conftest import MakePerson, OpenBrowser, Person


@pytest.mark.parametrize("make", [link, qr])
async def test_from_the_code_to_the_receipt(
    make: Callable[[Person, int], Awaitable[str]], shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    code = await make(shop, 2_550)

    start = await anns.get(f"/pay/{code}")
    strict(start)
    assert (start.status, start.heading) == (200, "Pay Corner shop")
    assert "SYP\u00a025.50" in start.words

    waiting = await anns.send(start, "phone", phone=payer.phone)
    strict(waiting)
    assert waiting.path == f"/pay/{code}/verify"
    assert payer.phone in waiting.words

    ready = await anns.send(waiting, "verify", otp="123 456")
    strict(ready)
    assert ready.path == f"/pay/{code}"
    assert "Pay SYP\u00a025.50" in ready.words
    assert "SYP\u00a0100.00" in ready.words

    receipt = await anns.send(ready, "confirm")
    strict(receipt)
    assert (receipt.status, receipt.heading) == (200, "Paid")
    assert receipt.path.startswith(f"/pay/{code}/receipt/")
    assert "SYP\u00a025.50 paid to Corner shop" in receipt.words
    assert (await payer.balance(), await shop.balance()) == (7_450, 2_550)

    again = await anns.get(f"/pay/{code}")
    strict(again)
    assert (again.status, again.heading) == (410, "Paid already")
    assert f'href="{receipt.path}"' in again.source

    gone = await anns.send(receipt, "sign-out")
    assert gone.status == 410
    assert "Your receipt" not in gone.words
    assert "pay_session" not in anns.cookies()


async def test_the_payer_says_how_much(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    for code in (await link(shop), await qr(shop, 100, "static")):
        ready = await anns.sign_in(code, payer.phone)
        for typed in ("", "0", "-1", "1.234", "much", "9" * 30, "1e3"):
            refused = await anns.send(ready, "amount", amount=typed)
            strict(refused)
            assert refused.status == 400
            assert refused.title.startswith("Error: ")
            field = next(names for names in refused.form("amount").names if names["name"] == "amount")
            assert (field["aria-invalid"], field["value"]) == ("true", typed)
            assert refused.form("amount").fields["key"] == ready.form("amount").fields["key"]
        # A slip of the pen is seen before it is paid.
        slip = await anns.send(ready, "amount", amount="9")
        strict(slip)
        assert (slip.status, "Pay SYP\u00a09.00" in slip.words) == (200, True)
        assert (await anns.send(ready, "amount", amount="101")).status == 400
        look = await anns.send(ready, "amount", amount="12,5")
        assert "SYP\u00a012.50" in look.words
        assert look.form("confirm").fields["key"] == ready.form("amount").fields["key"]
        receipt = await anns.send(look, "confirm")
        assert "SYP\u00a012.50" in receipt.words
        await anns.send(receipt, "sign-out")
    assert await payer.balance() == 10_000 - 2 * 1_250


async def test_pressed_twice_it_pays_once(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    for code in (await link(shop, 1_000), await link(shop)):
        ready = await anns.sign_in(code, payer.phone)
        if any(form.action.endswith("/amount") for form in ready.forms):
            ready = await anns.send(ready, "amount", amount="10")
        pages = await asyncio.gather(*(anns.send(ready, "confirm") for _ in range(4)))
        assert {page.heading for page in pages} == {"Paid"}
        assert len({page.path for page in pages}) == 1
        await anns.send(pages[0], "sign-out")
    assert (await payer.balance(), await shop.balance()) == (8_000, 2_000)


async def test_pressed_again_it_shows_the_receipt_whatever_the_rules_say(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    """The payer is of level 0 by then, and the payee no merchant: neither is asked for a payment that was made."""
    payer, anns = await person(balance=10_000, kyc=1), browser()
    for code in (await link(shop), await qr(shop, 100, "static")):
        await owner.execute("UPDATE users SET kyc_level = 1, is_merchant = true")
        ready = await anns.sign_in(code, payer.phone)
        look = await anns.send(ready, "amount", amount="10")
        other = await anns.send(await anns.get(ready.path), "amount", amount="10")
        first = await anns.send(look, "confirm")
        await owner.execute("UPDATE users SET kyc_level = 0, is_merchant = false")
        again = await anns.send(look, "confirm")
        assert (again.heading, again.path) == ("Paid", first.path)
        refused = await anns.send(other, "confirm")
        assert (refused.status, refused.heading) in {
            (403, "Pay Corner shop"),
            (409, "This cannot be paid now"),
        }
        anns.session.cookie_jar.clear()
    assert await payer.balance() == 8_000


async def test_without_the_forms_key_it_would_pay_twice(
    shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    """What the test above holds is held by the key in the form: two forms have two, and are two payments."""
    payer, anns = await person(balance=10_000, kyc=1), browser()
    ready = await anns.sign_in(await link(shop), payer.phone)
    again = await anns.get(ready.path)
    assert ready.form("amount").fields["key"] != again.form("amount").fields["key"]
    pages = await asyncio.gather(*(anns.pay(page, "10") for page in (ready, again)))
    assert {page.heading for page in pages} == {"Paid"}
    assert len({page.path for page in pages}) == 2
    assert await payer.balance() == 8_000


@pytest.mark.parametrize("make", [link, qr])
async def test_round_trips(
    make: Callable[[Person, int], Awaitable[str]],
    shop: Person,
    person: MakePerson,
    browser: OpenBrowser,
    round_trips: list[str],
) -> None:
    """The three of the API's payment, and one for what the code asks for, by which the form is read."""
    payer, anns = await person(balance=10_000, kyc=1), browser()
    for warm in (True, False):
        ready = await anns.sign_in(await make(shop, 100), payer.phone)
        form = ready.form("confirm")
        round_trips.clear()
        async with anns.session.post(
            anns.base + form.action, data=form.fields, allow_redirects=False
        ) as response:
            assert response.status == 303
        assert warm or len(round_trips) <= 4, round_trips
        await anns.send(ready, "sign-out")


async def test_an_old_form_with_another_amount(
    shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    ready = await anns.sign_in(await link(shop), payer.phone)
    await anns.pay(ready, "10")
    conflict = await anns.pay(ready, "20")
    assert conflict.status == 409
    assert "paid before" in conflict.trouble
    assert conflict.form("amount").fields["amount"] == "20"
    assert (await anns.pay(conflict, "20")).heading == "Paid"
    assert await payer.balance() == 7_000


async def test_a_code_that_ends_meanwhile(
    shop: Person, person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    ann, bob = await person(balance=10_000, kyc=1), await person(balance=10_000, kyc=1)
    code, anns, bobs = await link(shop, 1_000), browser(), browser()
    hers, his = await anns.sign_in(code, ann.phone), await bobs.sign_in(code, bob.phone)
    assert (await anns.send(hers, "confirm")).heading == "Paid"
    late = await bobs.send(his, "confirm")
    strict(late)
    assert (late.status, late.heading) == (410, "Paid already")
    assert "receipt" not in late.source
    code = await link(shop, 1_000)
    ready = await bobs.get(f"/pay/{code}")
    await owner.execute("UPDATE payables SET expires_at = now() - interval '1 s' WHERE code = $1", code)
    late = await bobs.send(ready, "confirm")
    assert (late.status, late.heading) == (410, "Too late")
    assert await bob.balance() == 10_000


async def test_codes_that_are_none(shop: Person, browser: OpenBrowser) -> None:
    anns = browser()
    for path in (
        "/pay/nothing",
        "/pay/%3Cscript%3E",
        "/pay/x%00y",
        f"/pay/{'x' * 300}",
        "/pay/é",
        "/pay?code=x",
    ):
        page = await anns.get(path)
        strict(page)
        assert page.status in {400, 404}, path
        assert page.trouble
        assert "<script>" not in page.source
    assert (await anns.get("/pay/files/none.css")).status == 404
    empty = await anns.get("/pay")
    strict(empty)
    assert (empty.status, empty.heading) == (200, "Pay")
    code = await link(shop, 100)
    for text in (code, f"LINK:v1;code={code}", f" LINK%3Av1%3Bcode%3D{code}"):
        assert (await anns.get(f"/pay?code={text}")).path == f"/pay/{code}"


async def test_phones_and_codes(shop: Person, browser: OpenBrowser, person: MakePerson) -> None:
    code, anns = await link(shop, 100), browser()
    start = await anns.get(f"/pay/{code}")
    for typed in ("", "none", "+12", "<b>", "944", "+" + "1" * 39):
        page = await anns.send(start, "phone", phone=typed)
        strict(page)
        assert (page.status, page.title.startswith("Error")) == (400, True)
        assert page.form("phone").fields["phone"] == typed
    payer = await person()
    local = f"0{payer.phone.removeprefix('+963')[:3]} {payer.phone.removeprefix('+963')[3:]}"
    waiting = await anns.send(start, "phone", phone=local)
    assert payer.phone in waiting.words
    for typed in ("", "000000", "x" * 20):
        page = await anns.send(waiting, "verify", otp=typed)
        strict(page)
        assert (page.status, page.trouble.startswith("The code is wrong")) == (400, True)
    assert (await anns.get(f"/pay/{code}/verify")).path.endswith("/verify")
    assert (await anns.send(waiting, "phone")).path.endswith("/verify")
    assert (await anns.send(waiting, "verify", otp="123456")).path == f"/pay/{code}"
    assert (await browser().get(f"/pay/{code}/verify")).path == f"/pay/{code}"
    for step in ("phone", "confirm", "sign-out"):
        assert (await browser().get(f"/pay/{code}/{step}")).path == f"/pay/{code}"


async def test_in_development_signing_in_here_takes_nothing_back(
    shop: Person, person: MakePerson, settings: Settings
) -> None:
    payer, code = await person(balance=10_000, kyc=1), await link(shop, 1_000)
    changes = {"env": "dev", "dev_reset_user_state_on_login": True}
    async with TestServer(create_app(Settings.model_validate(settings.model_dump() | changes))) as server:
        anns = Browser(str(server.make_url("/")))
        assert (await anns.send(await anns.sign_in(code, payer.phone), "confirm")).heading == "Paid"
        await anns.close()


async def test_how_long_it_is_good(shop: Person, browser: OpenBrowser) -> None:
    code = await link(shop, 100, expires_in_minutes=60)
    page = await browser().get(f"/pay/{code}")
    until = next(attributes["datetime"] for tag, attributes in page.elements if tag == "time")
    assert until is not None
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)


async def test_a_lost_answer_keeps_the_key(
    shop: Person,
    person: MakePerson,
    browser: OpenBrowser,
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    ready = await anns.sign_in(await link(shop), payer.phone)
    pay = platform.ledger.poster.submit

    async def pay_and_lose(posting: Any) -> Any:
        await pay(posting)
        raise Unavailable

    monkeypatch.setattr(platform.ledger.poster, "submit", pay_and_lose)
    lost = await anns.pay(ready, "10")
    monkeypatch.undo()
    strict(lost)
    assert (lost.status, "only once" in lost.trouble) == (503, True)
    assert (await anns.send(lost, "confirm")).heading == "Paid"
    assert await payer.balance() == 9_000
