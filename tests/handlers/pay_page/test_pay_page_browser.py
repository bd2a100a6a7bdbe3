"""The payment page in a real browser, as wide as a small phone, by keyboard alone, light and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.settings import Settings
from handlers.app import create_app
from tests.handlers.pay_page.chromium import Tab, find_chromium, open_tab
from tests.handlers.pay_page.page_reader import Browser, link, strict
from tests.handlers.wallets.conftest import ApiClient, MakePerson, OpenBrowser, Person

pytestmark = pytest.mark.drill

NARROW = 320
TAB, ENTER = ("Tab", 9), ("Enter", 13)
LEFT_OUT = "the payment page in a browser: neither chromium nor google-chrome is on the PATH"

FINDINGS = Path(__file__).with_name("page_findings.js").read_text()


async def check(tab: Tab, pictures: Path) -> None:
    """Look at the page in both colour schemes, and store what is to be seen."""
    heading = str(await tab.run("document.querySelector('h1').textContent")).split()[0]
    for scheme in ("light", "dark"):
        await tab.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        assert await tab.run(FINDINGS) == []
        number = len(list(pictures.iterdir()))
        await tab.picture(pictures / f"{number:02}-{heading}-{scheme}.png")


async def names(tab: Tab) -> list[tuple[str, str]]:
    """What a screen reader finds to fill in and to press, with its name."""
    tree = await tab.call("Accessibility.getFullAXTree")
    return [
        (node["role"]["value"], node["name"]["value"])
        for node in tree["nodes"]
        if not node["ignored"] and node["role"]["value"] in {"heading", "textbox", "button", "alert", "link"}
    ]


async def at_focus(tab: Tab) -> str:
    return str(await tab.run("document.activeElement.id || document.activeElement.textContent.trim()"))


async def walk_to(tab: Tab, wanted: str) -> None:
    """Go to a field or button as a keyboard does."""
    for _ in range(10):
        if await at_focus(tab) == wanted:
            return
        await tab.press(*TAB)
    raise AssertionError(f"no way to {wanted}")


async def pay_by_keyboard(tab: Tab, pictures: Path) -> None:
    """Say too much first, then how much, look at it again, and pay."""
    await check(tab, pictures)
    assert ("textbox", "Amount in SYP") in await names(tab)
    await walk_to(tab, "amount")
    await tab.type("99999")
    await tab.go(lambda: tab.press(*ENTER))
    await check(tab, pictures)
    assert await at_focus(tab) == "amount"
    await tab.run("document.activeElement.select()")
    await tab.type("12.50")
    await walk_to(tab, "Continue")
    await tab.go(lambda: tab.press(*ENTER))
    await check(tab, pictures)
    await walk_to(tab, "Pay SYP\u00a012.50")
    await tab.go(lambda: tab.press(*ENTER))

    await check(tab, pictures)
    assert "SYP\u00a012.50 paid to Corner shop." in str(await tab.run("document.body.innerText"))
    assert ("button", "Print") in await names(tab)


async def test_paying_by_keyboard_on_a_small_phone(
    wallets: ApiClient,
    shop: Person,
    person: MakePerson,
    browser: OpenBrowser,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    payer, code = await person(balance=100_000, kyc=1), await link(shop)
    program = find_chromium()
    if program is None:
        # What a browser would be shown is checked all the same.
        record_property("left_out", LEFT_OUT)
        strict(await browser().sign_in(code, payer.phone))
        return
    async with open_tab(program) as tab:
        await tab.call(
            "Emulation.setDeviceMetricsOverride", width=NARROW, height=640, deviceScaleFactor=2, mobile=True
        )
        await tab.go(lambda: tab.call("Page.navigate", url=str(wallets.make_url(f"/pay/{code}"))))
        await check(tab, tmp_path)
        assert await names(tab) == [
            ("heading", "Pay Corner shop"), ("textbox", "Your phone number"), ("button", "Send me a code"),
            ("link", "العربية"),
        ]  # fmt: skip
        await walk_to(tab, "phone")
        await tab.type(payer.phone)
        await tab.go(lambda: tab.press(*ENTER))

        await check(tab, tmp_path)
        await walk_to(tab, "otp")
        await tab.type("000000")
        await tab.go(lambda: tab.press(*ENTER))
        await check(tab, tmp_path)
        assert await at_focus(tab) == "otp"
        assert "alert" in [role for role, _ in await names(tab)]
        assert str(await tab.run("document.title")).startswith("Error: ")
        await tab.type("123456")
        await tab.go(lambda: tab.press(*ENTER))

        await pay_by_keyboard(tab, tmp_path)
        # A script could take nothing from here: the cookies are out of its reach.
        assert await tab.run("document.cookie") == ""
        # The policy was broken nowhere, no script failed; the two refused forms are the only complaints.
        assert [complaint for complaint in tab.complaints if "status of 400" not in complaint] == []
        # After the answer: a page that goes may take it along.
        await tab.go(lambda: tab.run("void setTimeout(() => history.back())"))
        await tab.go(lambda: tab.run("void setTimeout(() => location.reload())"))
    assert await payer.balance() == 98_750


async def test_without_its_script_the_page_works_as_well(
    wallets: ApiClient,
    shop: Person,
    person: MakePerson,
    browser: OpenBrowser,
    record_property: Callable[[str, object], None],
) -> None:
    payer, code = await person(balance=10_000, kyc=1), await link(shop, 1_000)
    program = find_chromium()
    if program is None:
        record_property("left_out", LEFT_OUT)
        strict(await browser().sign_in(code, payer.phone))
        return
    async with open_tab(program) as tab:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.go(lambda: tab.call("Page.navigate", url=str(wallets.make_url(f"/pay/{code}"))))
        for text in (payer.phone, "123456", ""):
            await tab.press(*TAB)
            await tab.type(text)
            await tab.go(lambda: tab.press(*ENTER))
        heading = await tab.run("document.querySelector('h1').textContent")
    assert heading == "Paid"
    assert await payer.balance() == 9_000


async def test_the_walk_of_a_new_developer_in_arabic(
    shop: Person, settings: Settings, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The README's browser step: a phone that nobody knows signs in, is verified by a button, and pays.

    From right to left, on a small phone, in a colour that nobody could read as it is.
    """
    code = await link(shop, 2_550, description="كرسيان", reference="A-17")
    changes = {
        "env": "dev",
        "starting_credit_cents": 10_000,
        "brand_color": "#ffcc00",
        "brand_name": "Bank of Aleppo",
    }
    dev = Settings.model_validate(settings.model_dump() | changes)
    program = find_chromium()
    async with TestServer(create_app(dev)) as server:
        if program is None:
            record_property("left_out", LEFT_OUT)
            anns = Browser(str(server.make_url("/")))
            ready = await anns.send(await anns.sign_in(code, "0944 777 654"), "verification")
            assert (await anns.send(ready, "confirm")).heading == "Paid"
            await anns.close()
            return
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        async with open_tab(program) as tab:
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=NARROW,
                height=640,
                deviceScaleFactor=2,
                mobile=True,
            )
            await tab.go(lambda: tab.call("Page.navigate", url=str(server.make_url(f"/pay/{code}?lang=ar"))))
            assert await tab.run("getComputedStyle(document.querySelector('main')).direction") == "rtl"
            for field, text, button in (
                ("phone", "٠٩٤٤ ٧٧٧ ٦٥٤", "أرسل إليّ رمزًا"),
                ("otp", "١٢٣٤٥٦", "تسجيل الدخول"),
                (None, "", "وثّق حسابي"),
                (None, "", None),
            ):
                await check(tab, pictures)
                if field is not None:
                    await walk_to(tab, field)
                    await tab.type(text)
                # The last button names the amount, as its language writes it.
                await walk_to(
                    tab, button or str(await tab.run("document.querySelector('main button').textContent"))
                )
                await tab.go(lambda: tab.press(*ENTER))
            await check(tab, pictures)
            assert await tab.run("document.querySelector('h1').textContent") == "تمّ الدفع"
            assert tab.complaints == []


async def test_from_another_site_the_payer_stays_signed_in(
    wallets: ApiClient,
    shop: Person,
    person: MakePerson,
    browser: OpenBrowser,
    record_property: Callable[[str, object], None],
) -> None:
    """A link there leads to the payment, and a form there changes nothing, not even the other tab's form."""
    payer, code = await person(balance=10_000, kyc=1), await link(shop, 1_000)
    ours = str(wallets.make_url(f"/pay/{code}"))
    program = find_chromium()
    if program is None:
        record_property("left_out", LEFT_OUT)
        strict(await browser().sign_in(code, payer.phone))
        return
    theirs = f"""<a href="{ours}">Buy</a>
    <form method="post" action="{ours}/confirm"><input name="key" value="k"><button>Win</button></form>"""

    async def site(_request: web.Request) -> web.Response:
        return web.Response(text=theirs, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", site)
    async with TestServer(app) as other, open_tab(program) as tab:
        # Another name is another site, on whatever port.
        elsewhere = str(other.make_url("/")).replace("127.0.0.1", "localhost")
        await tab.go(lambda: tab.call("Page.navigate", url=ours))
        for text in (payer.phone, "123456"):
            await tab.press(*TAB)
            await tab.type(text)
            await tab.go(lambda: tab.press(*ENTER))
        pay = "Pay SYP\u00a010.00"
        read = "document.querySelector('input[name=form]').value"
        assert pay in [name for _, name in await names(tab)]
        proof = await tab.run(read)
        for press in ("a", "button"):
            await tab.go(lambda: tab.call("Page.navigate", url=elsewhere))
            click = f"void setTimeout(() => document.querySelector('{press}').click())"
            await tab.go(lambda: tab.run(click))  # noqa: B023 - it is called at once
            if press == "a":
                assert pay in [name for _, name in await names(tab)]
            else:
                assert await tab.run("document.querySelector('h1').textContent") == "This form was too old"
        # The form of a tab that stood open meanwhile is still good.
        await tab.go(lambda: tab.call("Page.navigate", url=ours))
        assert await tab.run(read) == proof
        await tab.go(lambda: tab.run("void setTimeout(() => document.querySelector('main button').click())"))
        assert await tab.run("document.querySelector('h1').textContent") == "Paid"
    assert await payer.balance() == 9_000


@pytest.mark.parametrize("missing", [True, False])
def test_what_is_left_out_is_told(
    missing: bool,  # noqa: FBT001 - a parameter of the test
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if missing:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_chromium() is None
    else:
        program = tmp_path / "google-chrome"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_chromium() == str(program)
