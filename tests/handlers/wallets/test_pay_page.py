"""The payment page, as a browser without scripts meets it: every step, every error, and who may not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp.test_utils import TestServer

from core.errors import Unavailable
from core.service import Service
from core.settings import Settings
from core.wallets.platform import Platform
from handlers.app import create_app
from tests.handlers.wallets.conftest import ApiClient, MakePerson, Person
from tests.handlers.wallets.page_reader import Browser, Page, strict

OpenBrowser = Callable[[], Browser]


@pytest.fixture
async def browser(wallets: ApiClient) -> AsyncIterator[OpenBrowser]:
    opened: list[Browser] = []

    def open_browser() -> Browser:
        opened.append(Browser(str(wallets.make_url("/"))))
        return opened[-1]

    yield open_browser
    for one in opened:
        await one.close()


async def link(owner: Person, amount: int | None = None, **more: Any) -> str:
    body = more if amount is None else {"amount_cents": amount, **more}
    said = await owner.post("/payments/links", body)
    assert said.status == 200, said
    return str(said.json["code"]).removeprefix("LINK:v1;code=")


async def qr(owner: Person, amount: int, mode: str = "dynamic") -> str:
    said = await owner.post("/payments/merchant/qr", {"amount_cents": amount, "mode": mode})
    assert said.status == 200, said
    return str(said.json["code"]).removeprefix("PAY:v1;code=")


@pytest.fixture
async def shop(person: MakePerson, owner: Any) -> Person:
    made = await person(kyc=1, merchant=True)
    await owner.execute("UPDATE users SET name = 'Corner shop' WHERE id = $1", made.user.id)
    return made


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
            refused = await anns.send(ready, "confirm", amount=typed)
            strict(refused)
            assert refused.status == 400
            assert refused.title.startswith("Error: ")
            field = next(names for names in refused.form("confirm").names if names["name"] == "amount")
            assert (field["aria-invalid"], field["value"]) == ("true", typed)
            assert refused.form("confirm").fields["key"] == ready.form("confirm").fields["key"]
        receipt = await anns.send(ready, "confirm", amount="12,5")
        assert "SYP\u00a012.50" in receipt.words
        await anns.send(receipt, "sign-out")
    assert await payer.balance() == 10_000 - 2 * 1_250


async def test_pressed_twice_it_pays_once(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    for code, typed in ((await link(shop, 1_000), {}), (await link(shop), {"amount": "10"})):
        ready = await anns.sign_in(code, payer.phone)
        pages = await asyncio.gather(*(anns.send(ready, "confirm", **typed) for _ in range(4)))
        assert {page.heading for page in pages} == {"Paid"}
        assert len({page.path for page in pages}) == 1
        await anns.send(pages[0], "sign-out")
    assert (await payer.balance(), await shop.balance()) == (8_000, 2_000)


async def test_an_old_form_with_another_amount(
    shop: Person, person: MakePerson, browser: OpenBrowser
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    ready = await anns.sign_in(await link(shop), payer.phone)
    await anns.send(ready, "confirm", amount="10")
    conflict = await anns.send(ready, "confirm", amount="20")
    assert conflict.status == 409
    assert "paid before" in conflict.trouble
    assert (await anns.send(conflict, "confirm", amount="20")).heading == "Paid"
    assert await payer.balance() == 7_000


async def test_what_stands_in_the_way(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    poor, unknown = await person(balance=10, kyc=1), await person(balance=10_000)
    code, anns = await link(shop, 1_000), browser()
    ready = await anns.sign_in(code, poor.phone)
    refused = await anns.send(ready, "confirm")
    strict(refused)
    assert (refused.status, refused.trouble) == (400, "There is not enough in your wallet. Nothing was paid.")
    await poor.top_up(5_000)
    bobs = browser()
    blocked = await bobs.send(await bobs.sign_in(code, unknown.phone), "confirm")
    assert (blocked.status, "must be verified" in blocked.trouble) == (403, True)
    assert (await anns.send(refused, "confirm")).heading == "Paid"
    late = await bobs.send(blocked, "confirm")
    assert late.status == 403  # what the payer lacks is told before the code's state


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
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/pay", "Strict", True)
    # A cookie that is no token of ours is no sign-in, and no error.
    eves = browser()
    for bad in ("x", "é", "a.b.c", "x" * 4_100, f"{anns.cookies()['pay_session'].value}x"):
        page = await eves.get(f"/pay/{other}", Cookie=f"pay_session={bad}; pay_visitor=<b>; pay_phone=x")
        assert (page.status, page.forms[0].action) == (200, f"/pay/{other}/phone")
    # The sign-in is a row as any other: its owner sees it, and ends it from elsewhere.
    assert (await bob.post("/auth/logout_all")).status == 200
    form = (await bobs.get(f"/pay/{other}")).forms[0]
    assert form.action.endswith("/phone")


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
        await anns.send(pages[-1], "confirm", amount=name[:40]),
        await anns.send(pages[-1], "confirm", amount="1"),
    ]
    for page in pages:
        strict(page)
        assert name in page.words, page.source
        assert [tag for tag, _ in page.elements].count("script") == 1
        assert "img" not in [tag for tag, _ in page.elements]
    assert pages[2].form("confirm").fields["amount"] == name[:40]


async def test_a_payee_without_a_name_stays_masked(person: MakePerson, browser: OpenBrowser) -> None:
    shop = await person(kyc=1)
    page = await browser().get(f"/pay/{await link(shop)}")
    assert shop.phone not in page.source
    assert shop.phone[-2:] in page.heading


async def test_how_long_it_is_good(shop: Person, browser: OpenBrowser) -> None:
    code = await link(shop, 100, expires_in_minutes=60)
    page = await browser().get(f"/pay/{code}")
    until = next(attributes["datetime"] for tag, attributes in page.elements if tag == "time")
    assert until is not None
    left = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)


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
        assert ready.form("confirm").action == f"/pay/{code}/confirm"
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
    lost = await anns.send(ready, "confirm", amount="10")
    monkeypatch.undo()
    strict(lost)
    assert (lost.status, "only once" in lost.trouble) == (503, True)
    assert (await anns.send(lost, "confirm", amount="10")).heading == "Paid"
    assert await payer.balance() == 9_000
