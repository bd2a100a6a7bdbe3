"""The languages of the payment page: every text goes through the catalogues, and each catalogue is whole."""

import re
import tomllib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from core.errors import Refusal
from core.money import decimals
from core.payables.kinds import KINDS
from core.settings import Settings
from core.wallets import amounts
from handlers.app import create_app
from handlers.pay_page.languages import load_languages
from handlers.pay_page.words import trouble_of
from tests.handlers.pay_page.page_reader import Browser, Page, link, qr, strict
from tests.handlers.wallets.conftest import MakePerson, OpenBrowser, Person

pytestmark = pytest.mark.shared

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "handlers" / "pay_page"
OURS = FOLDER / "locale"
# The texts of a catalogue of brackets: each stands between them.
OPENING, CLOSING = "\u27e6", "\u27e7"


@cache
def texts() -> set[str]:
    """The texts of the page, found as the documented command finds them."""
    mappings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["babel"]["mappings"]
    methods = [(mapping["pattern"], mapping["method"]) for mapping in mappings]
    found = extract_from_dir(FOLDER, methods, keywords={"_": None, "n_": None})
    return {str(text) for _, _, text, _, _ in found}


def bracketed(folder: Path) -> Path:
    """Write a catalogue in which every text is in brackets."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in sorted(texts()))
    lines = [f'msgid "{text}"\nmsgstr "{OPENING}{text}{CLOSING}"\n' for text in escaped]
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n'
    (folder / "de.po").write_text("\n".join([head, *lines]), "utf-8")
    return folder


@pytest.mark.parametrize("file", sorted(OURS.glob("*.po")), ids=lambda file: file.name)
def test_each_catalogue_is_whole(file: Path) -> None:
    with file.open("rb") as text:
        catalogue = read_po(text)
    said = {str(message.id): str(message.string) for message in catalogue if message.id}
    assert set(said) == texts()
    assert not [text for text, translation in said.items() if not translation.strip()]
    assert not [message.id for message in catalogue if message.fuzzy]
    load_languages()


def test_each_refusal_of_a_payment_has_a_sentence_of_its_own() -> None:
    """A refusal without one is told in English: what the rules of codes and links can say is foreseen."""
    codes = {"kyc_level_required", "risk_blocked", "currency_mismatch", "account_frozen", "account_closed"}
    for kind in ("qr", "link"):
        rules = KINDS[kind]
        codes |= {
            rules.not_collectable[0],
            rules.amount_required,
            *rules.causes,
            *(code for code, _ in rules.closed.values()),
        }
    arabic = load_languages().all["ar"]
    for code in sorted(codes):
        sentence = trouble_of(Refusal(code, "English"), arabic).sentence
        assert not re.search("[A-Za-z]", sentence), code
        assert sentence != arabic.say("This did not work. Nothing was paid."), code


async def walk(anns: Browser, code: str, static: str, payer: Person) -> AsyncIterator[Page]:
    """Yield every page that a payer may see on the way, with their refusals."""
    yield await anns.get("/pay")
    yield await anns.get("/pay/none")
    start = await anns.get(f"/pay/{code}")
    yield start
    yield await anns.send(start, "phone", phone="x")
    waiting = await anns.send(start, "phone", phone=payer.phone)
    yield waiting
    yield await anns.send(waiting, "verify", otp="1")
    ready = await anns.send(waiting, "verify", otp="123456")
    yield ready
    yield await anns.post(f"/pay/{code}/confirm", {})
    field = await anns.get(f"/pay/{static}")
    yield field
    yield await anns.send(field, "amount", amount="x")
    yield await anns.send(field, "amount", amount="5000")
    yield await anns.send(field, "amount", amount="12.5")
    yield await anns.send(ready, "confirm")
    yield await anns.get(f"/pay/{code}")


async def test_no_text_stands_beside_the_catalogue(
    shop: Person, person: MakePerson, settings: Settings, tmp_path: Path
) -> None:
    code = await link(shop, 2_550, description="Two chairs", reference="A-17")
    static, payer = await qr(shop, 100, "static"), await person(balance=10_000, kyc=1)
    more = Settings.model_validate(settings.model_dump() | {"brand_languages_dir": str(bracketed(tmp_path))})
    names = {"Tallystick", "English", "Deutsch", "العربية", "Corner shop", "Two chairs", "A-17", "SYP"}
    async with TestServer(create_app(more)) as server:
        anns = Browser(str(server.make_url("/")))
        await anns.get("/pay?lang=de")
        async for page in walk(anns, code, static, payer):
            strict(page)
            rest = f"{page.title} {page.words}"
            while (shorter := re.sub(f"{OPENING}[^{OPENING}{CLOSING}]*{CLOSING}", " ", rest)) != rest:
                rest = shorter
            rest = re.sub(r"[0-9a-f-]{36}", "", rest)
            for name in names:
                rest = rest.replace(name, " ")
            assert re.findall(r"[^\W\d_]{2,}", rest) == [], page.source
        await anns.close()


async def test_arabic_from_right_to_left(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    code = await link(shop, 2_550, description="كرسيان", reference="A-17")
    static, payer, anns = await qr(shop, 100, "static"), await person(balance=10_000, kyc=1), browser()
    assert (await anns.get(f"/pay/{code}")).elements[0][1] == {"lang": "en", "dir": "ltr"}
    asked = await anns.get(f"/pay/{code}", **{"Accept-Language": "fr;q=0.9, ar-SY;q=0.8, en;q=0.1"})
    assert asked.elements[0][1] == {"lang": "ar-SY", "dir": "rtl"}
    assert asked.headers["Content-Language"] == "ar-SY"
    chosen = await anns.get(f"/pay/{code}?lang=ar", **{"Accept-Language": "en"})
    assert (chosen.elements[0][1]["dir"], chosen.heading) == ("rtl", "الدفع إلى Corner shop")
    latin = re.compile(r"[A-Za-z]{2,}")
    async for page in walk(anns, code, static, payer):
        strict(page)
        assert page.elements[0][1] == {"lang": "ar", "dir": "rtl"}
        words = page.words
        for name in ("Tallystick", "English", "Corner shop", "SYP"):
            words = words.replace(name, " ")
        assert latin.findall(re.sub(r"[0-9a-f-]{36}", "", words)) == [], page.source
        if page.heading == "تمّ الدفع":
            assert "25.50\u00a0ل.س." in page.words
    # The proof of a receipt stays when the language changes, nothing else that somebody wrote into the query does.
    for query, rest in (
        ("proof=a%26b&x=%3Cb%3E", "proof=a%26b&"),
        ("lang=xx&%FF=%FF&code", "code="),
        ("proof=" + "x" * 999, "x"),
    ):
        async with anns.session.get(URL(f"{anns.base}/pay/{code}?{query}", encoded=True)) as response:
            page = Page(response.status, response.headers, await response.text(), "")
        switch = next(a["href"] or "" for tag, a in page.elements if a.get("hreflang") == "en")
        assert rest in switch
        assert len(switch) < 250
        assert "lang=en" in switch
        assert "x=" not in switch
    back = await anns.get(f"/pay/{code}?lang=en")
    assert back.elements[0][1]["dir"] == "ltr"
    assert (await anns.get(f"/pay/{code}?lang=xx")).elements[0][1]["dir"] == "ltr"


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"), ("*", "en"), ("ar", "ar"), ("AR-sy", "ar-SY"), ("en-GB,ar;q=0.9", "en-GB"), ("fr,de", "en"),
        ("ar;q=0", "en"), ("ar;q=0.2,en;q=0.3", "en"), ("ar-Arab-EG", "ar-EG"), ("ar-ZZ", "ar"), ("ar;q=x, en", "en"),
        ("ar" * 300, "en"), (",".join(["fr"] * 30 + ["ar"]), "en"), ("../../etc", "en"), ("ar-../..", "en"),
    ],
)  # fmt: skip
def test_what_the_browser_asks_for(header: str, tag: str) -> None:
    languages = load_languages()
    assert languages.chosen("", header).tag == tag
    assert languages.chosen("ar", header).code == "ar"
    assert languages.chosen("../x", header).tag == tag


@given(
    st.integers(1, 10**18 - 1),  # people type no more digits
    st.sampled_from(["SYP", "JPY", "KWD", "USD", "EUR", "XYZ9"]),
    st.sampled_from(["ar", "ar-SY", "ar-AE", "en", "en-US", "en-IN"]),
)
def test_an_amount_in_any_language_is_that_amount(minor: int, currency: str, wish: str) -> None:
    """The digits after the point are the ledger's, and no digit is lost, whatever CLDR says of the currency."""
    shown = load_languages().chosen("", wish).amount(minor, currency)
    digits = "".join(re.findall(r"[0-9.,]*[0-9]", shown.replace("XYZ9", "")))
    assert amounts.read(digits.replace(",", ""), currency) == minor
    assert len(digits.partition(".")[2]) == decimals(currency)


def test_times_and_waits() -> None:
    languages, when = load_languages(), datetime(2026, 11, 29, 17, 4, tzinfo=UTC)
    english, arabic = languages.chosen("", "en"), languages.chosen("", "ar-SY")
    assert english.moment(when).replace("\u202f", " ") == "29 November 2026, 5:04 pm UTC"
    assert arabic.moment(when).startswith("29 تشرين الثاني 2026")
    assert (english.wait(1), english.wait(120), arabic.wait(120)) == ("1 second", "2 minutes", "دقيقتان")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("french.po", "", "named by its language"),
        ("fr.po", 'msgid "Pay %(amount)s"\nmsgstr "Payer %(montant)s"', "placeholders"),
        ("fr.po", 'msgid "Pay"\nmsgstr "<b>Payer</b>"', "markup"),
        ("fr.po", 'msgid "Pay"\nmsgstr "Payer 5%"', "placeholders"),
        ("fr.po", "Payer", "fr.po"),
        ("zz.po", 'msgid "Pay"\nmsgstr "x"', "zz.po"),
    ],
)
def test_a_bad_catalogue_is_refused_at_the_start(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ValueError, match=said):
        load_languages(tmp_path)


async def test_a_half_done_catalogue_falls_back_on_english(
    tmp_path: Path, shop: Person, settings: Settings
) -> None:
    (tmp_path / "fr.po").write_text('msgid "Your phone number"\nmsgstr "Votre numéro"\n', "utf-8")
    more: Any = settings.model_dump() | {"brand_languages_dir": str(tmp_path)}
    async with TestServer(create_app(Settings.model_validate(more))) as server:
        anns = Browser(str(server.make_url("/")))
        page = await anns.get(f"/pay/{await link(shop, 100)}", **{"Accept-Language": "fr-CH"})
        assert ("Votre numéro" in page.words, "Send me a code" in page.words) == (True, True)
        assert page.elements[0][1] == {"lang": "fr-CH", "dir": "ltr"}
        await anns.close()
