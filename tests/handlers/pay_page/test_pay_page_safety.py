"""The payment page against those who are not who they seem: forms and cookies of others, names that are code."""

from typing import Any
from uuid import uuid4

import pytest
from aiohttp.test_utils import TestServer
from yarl import URL

from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.pay_page.page_reader import Browser, Page, link, strict
from tests.handlers.wallets.conftest import ApiClient, MakePerson, OpenBrowser, Person


@pytest.mark.parametrize("step", ["phone", "verify", "confirm", "sign-out"])
async def test_a_form_of_another_site_does_nothing(
    step: str, shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    payer, anns, eves = await person(balance=10_000, kyc=1), browser(), browser()
    code = await link(shop, 1_000)
    ready = await anns.sign_in(code, payer.phone)
    hers = await eves.get(f"/pay/{code}")
    if step == "verify":
        anns = browser()
        await anns.send(await anns.get(f"/pay/{code}"), "phone", phone=payer.phone)
    fields = {"key": "k", "phone": payer.phone, "otp": "123456"}
    for stolen in ("", "0" * 64, "é", hers.form("phone").fields["form"]):
        page = await anns.post(f"/pay/{code}/{step}", {**fields, "form": stolen})
        assert page.status == 403, (step, stolen)
    genuine = (await anns.get(f"/pay/{code}")).forms[0].fields["form"]
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        page = await anns.post(f"/pay/{code}/{step}", {**fields, "form": genuine}, **headers)
        assert page.status == 403, (step, site)
        # Such a form comes without our cookies; new ones would end the forms of open tabs.
        page = await browser().post(f"/pay/{code}/{step}", {**fields, "form": genuine}, **headers)
        assert (page.status, page.headers.getall("Set-Cookie", [])) == (403, [])
    assert await payer.balance() == 10_000
    assert ready.status == 200


async def test_whose_cookies(shop: Person, person: MakePerson, browser: OpenBrowser, nobody: Person) -> None:
    ann, bob = await person(balance=10_000, kyc=1), await person(balance=10_000, kyc=1)
    anns, bobs = browser(), browser()
    code = await link(shop, 1_000)
    receipt = await anns.send(await anns.sign_in(code, ann.phone), "confirm")
    other = await link(shop)
    await bobs.sign_in(other, bob.phone)
    assert (await bobs.get(receipt.path)).status == 404
    assert (await bobs.get(f"/pay/{code}/receipt/{uuid4()}")).status == 404
    assert (await bobs.get(f"/pay/{code}/receipt/none")).status == 404
    assert (await browser().get(receipt.path)).status == 410
    for cookie in anns.cookies().values():
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/pay", "Lax", True)
    # A cookie that is no token of ours is no sign-in, and no error.
    eves = browser()
    for bad in ("x", "é", "a.b.c", "x" * 4_100, f"{anns.cookies()['pay_session'].value}x"):
        page = await eves.get(f"/pay/{other}", Cookie=f"pay_session={bad}; pay_visitor=<b>; pay_phone=x")
        assert (page.status, page.forms[0].action) == (200, f"/pay/{other}/phone")
    # The sign-in is a row as any other: its owner sees it, and ends it from elsewhere.
    assert (await bob.post("/auth/logout_all")).status == 200
    form = (await bobs.get(f"/pay/{other}")).forms[0]
    assert form.action.endswith("/phone")


async def test_a_form_from_before_a_sign_in_or_sign_out_does_nothing(
    shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    ann, bob, anns = await person(balance=10_000, kyc=1), await person(balance=10_000, kyc=1), browser()
    code = await link(shop)
    start = await anns.get(f"/pay/{code}")
    other = await anns.get(f"/pay/{code}")
    assert start.form("phone").fields == other.form("phone").fields  # two tabs are one visitor
    hers = await anns.sign_in(code, ann.phone)
    visitor = anns.cookies()["pay_visitor"].value
    # The other tab is told so, and shown the payment of the payer who has signed in by now.
    late = await anns.send(start, "phone", phone=bob.phone)
    assert (late.status, "too old" in late.trouble, ann.phone in late.words) == (403, True, True)
    await anns.send(hers, "sign-out")
    assert anns.cookies()["pay_visitor"].value != visitor
    assert (await anns.send(start, "phone", phone=bob.phone)).status == 403
    his = await anns.sign_in(code, bob.phone)
    forms = [page.forms[0].fields["form"] for page in (start, hers, his)]
    assert len(set(forms)) == 3
    # A form of the first payer does not pay with the second one's money, even with the cookie of that time.
    look = await anns.send(hers, "amount", amount="10")
    assert (look.status, "too old" in look.trouble, bob.phone in look.words) == (403, True, True)
    anns.session.cookie_jar.update_cookies({"pay_visitor": visitor}, URL(anns.base + "/pay"))
    assert (await anns.send(hers, "amount", amount="10")).status == 403
    assert (await ann.balance(), await bob.balance()) == (10_000, 10_000)


async def test_the_sign_in_ends_before_the_payment(
    shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    ready = await anns.sign_in(await link(shop, 1_000), payer.phone)
    anns.session.cookie_jar.clear(lambda cookie: cookie.key == "pay_session")
    page = await anns.send(ready, "confirm")
    strict(page)
    assert (page.status, page.forms[0].action.endswith("/phone")) == (403, True)
    assert "sign in again" in page.trouble
    assert await payer.balance() == 10_000


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;{title}"]
)
async def test_names_are_text(name: str, person: MakePerson, owner: Any, browser: OpenBrowser) -> None:
    shop, payer, anns = await person(kyc=1), await person(balance=1_000, kyc=1), browser()
    await owner.execute("UPDATE users SET name = $2 WHERE id = $1", shop.user.id, name)
    code = await link(shop)
    pages: list[Page] = [await anns.get(f"/pay/{code}"), await anns.sign_in(code, payer.phone)]
    pages += [
        await anns.send(pages[-1], "amount", amount=name[:40]),
        await anns.send(pages[-1], "amount", amount="1"),
    ]
    pages.append(await anns.send(pages[-1], "confirm"))
    for page in pages:
        strict(page)
        assert name in page.words, page.source
        assert [tag for tag, _ in page.elements].count("script") == 1
        assert "img" not in [tag for tag, _ in page.elements]
    assert pages[2].form("amount").fields["amount"] == name[:40]


async def test_a_payee_without_a_name_stays_masked(person: MakePerson, browser: OpenBrowser) -> None:
    shop = await person(kyc=1)
    page = await browser().get(f"/pay/{await link(shop)}")
    assert shop.phone not in page.source
    assert shop.phone[-2:] in page.heading


async def test_who_is_paid_stands_beneath_the_name(
    person: MakePerson, browser: OpenBrowser, owner: Any
) -> None:
    """A name may say anything, so the masked phone stands beneath it; only approved merchants are marked."""
    eve = await person(kyc=1, merchant=True)
    code, hidden = await link(eve), "\u202e\u200b\u061c\u200f"
    for name in ("+963944111222", f"Corner shop {hidden}", hidden):
        await owner.execute("UPDATE users SET name = $2 WHERE id = $1", eve.user.id, name)
        page = await browser().get(f"/pay/{code}")
        assert f"{eve.phone[:4]}…{eve.phone[-2:]}" in page.words
        assert not set(hidden) & set(page.source.replace("العربية", ""))
        assert "Approved merchant" in page.words
    statement = "UPDATE users SET merchant_status = $2, is_merchant = $3 WHERE id = $1"
    for state, merchant in (("none", True), ("suspended", True), ("approved", False)):
        await owner.execute(statement, eve.user.id, state, merchant)
        assert "Approved merchant" not in (await browser().get(f"/pay/{code}")).words


async def test_bodies_that_are_no_forms(shop: Person, wallets: ApiClient) -> None:
    path = f"/pay/{await link(shop, 100)}/confirm"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers, body, status in (
        ({"Content-Type": "application/json"}, b"{}", 415),
        (form, b"x" * 10_000, 413),
        (form, b"form", 400),
        (form, b"form=%ff", 400),
        (form, "form=é".encode(), 400),
        (form, b"form=%00", 400),
        (form, b"&".join(b"a=1" for _ in range(20)), 400),
        (form, b"", 403),
    ):
        async with wallets.post(path, data=body, headers=headers) as response:
            assert response.status == status, body[:20]
            assert response.content_type == "text/html"
    async with wallets.put(path) as response:
        assert response.status == 405
    async with wallets.get("/pay/files/pay.js") as response:
        assert (response.status, response.content_type) == (200, "text/javascript")


async def test_signing_in_is_limited(shop: Person, wallets: ApiClient, browser: OpenBrowser) -> None:
    anns = browser()
    start = await anns.get(f"/pay/{await link(shop, 100)}")
    seen = [await anns.send(start, "phone", phone="none") for _ in range(25)]
    assert {page.status for page in seen} == {400, 429}
    limited = seen[-1]
    strict(limited)
    assert (limited.status, limited.heading) == (429, "Too many requests")
    assert "Try again in" in limited.trouble
    assert int(limited.headers["Retry-After"]) > 0


async def test_the_code_is_sent_and_locked(
    shop: Person, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real codes: one is good once, the third wrong one locks the phone, and the page says for how long."""
    code = await link(shop)
    monkeypatch.setattr("core.identity.codes.secrets.randbelow", lambda _: 4_242)
    real = Settings.model_validate(settings.model_dump() | {"otp_mode": "redis"})
    async with TestServer(create_app(real)) as server:
        anns, eves = Browser(str(server.make_url("/"))), Browser(str(server.make_url("/")))
        waiting = await anns.send(await anns.get(f"/pay/{code}"), "phone", phone="+963944123456")
        assert "4242" not in waiting.words
        ready = await anns.send(waiting, "verify", otp="004242")
        assert ready.form("verification").action == f"/pay/{code}/verification"
        waiting = await eves.send(await eves.get(f"/pay/{code}"), "phone", phone="+963944123456")
        wrong = [await eves.send(waiting, "verify", otp="000000") for _ in range(4)]
        assert [page.status for page in wrong] == [400, 400, 400, 429]
        assert wrong[-1].trouble == "There were too many wrong codes. Try again in 2 minutes."
        assert int(wrong[-1].headers["Retry-After"]) > 100
        await eves.close()
        await anns.close()


async def test_without_keys_there_is_no_page(settings: Settings, service: Service) -> None:
    bare = Settings.model_validate(settings.model_dump() | {"jwt_secret": ""})
    async with TestServer(create_app(bare, service)) as server:
        anns = Browser(str(server.make_url("/")))
        page = await anns.get("/pay")
        strict(page)
        assert page.status == 404
        await anns.close()


async def test_codes_that_no_column_holds(wallets: ApiClient) -> None:
    for code in ("%00", "abc%00", "%7f", "%C3%A9"):
        async with wallets.get(URL(f"/pay?code={code}", encoded=True), allow_redirects=False) as said:
            assert said.status == 404, code
