"""The payment page in a real browser, as wide as a small phone, by keyboard alone, light and dark."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handlers.pay_page.chromium import Tab, find_chromium, open_tab
from tests.handlers.pay_page.page_reader import link, strict
from tests.handlers.wallets.conftest import ApiClient, MakePerson, OpenBrowser, Person

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
    """Say too much first, then how much, and pay."""
    await check(tab, pictures)
    assert ("textbox", "Amount in SYP") in await names(tab)
    await walk_to(tab, "amount")
    await tab.type("99999")
    await tab.go(lambda: tab.press(*ENTER))
    await check(tab, pictures)
    assert await at_focus(tab) == "amount"
    await tab.run("document.activeElement.select()")
    await tab.type("12.50")
    await walk_to(tab, "Pay")
    await tab.go(lambda: tab.press(*ENTER))

    await check(tab, pictures)
    assert "SYP\u00a012.50 paid to Corner shop." in str(await tab.run("document.body.innerText"))


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
