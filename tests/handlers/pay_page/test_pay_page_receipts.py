"""Receipts that can be kept: an address that shows the payment again, to its holder alone."""

from uuid import uuid4

import pytest
from aiohttp.test_utils import TestServer

from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from tests.handlers.pay_page.page_reader import Browser, Page, link, qr, strict
from tests.handlers.wallets.conftest import MakePerson, OpenBrowser, Person

pytestmark = pytest.mark.shared


def kept(receipt: Page) -> str:
    """The address under which a receipt is kept."""
    found = [attributes.get("href") or "" for tag, attributes in receipt.elements if tag == "a"]
    return next(address for address in found if "proof=" in address and "lang=" not in address)


async def test_a_receipt_is_shown_again(shop: Person, person: MakePerson, browser: OpenBrowser) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    code = await link(shop, 2_550, description="Two chairs", reference="A-17")
    static = await qr(shop, 100, "static")
    first = await anns.pay(await anns.sign_in(code, payer.phone))
    second = await anns.pay(await anns.get(f"/pay/{static}"), "12.50")
    for receipt, amount in ((first, "SYP\u00a025.50"), (second, "SYP\u00a012.50")):
        strict(receipt)
        number = receipt.path.rsplit("/", 1)[1]
        stranger = await browser().get(kept(receipt))
        strict(stranger)
        for page in (receipt, stranger):
            assert (page.status, page.heading) == (200, "Paid")
            for part in (
                f"{amount} paid to Corner shop",
                number,
                f"…{shop.phone[-2:]}",
                "Approved merchant",
                "UTC",
            ):
                assert part in page.words, part
            times = [attributes["datetime"] for tag, attributes in page.elements if tag == "time"]
            assert len(times) == 1
            prints = [
                attributes
                for tag, attributes in page.elements
                if tag == "button" and "data-prints" in attributes
            ]
            assert [(made["type"], "hidden" in made) for made in prints] == [("button", True)]
        # The holder of the address sees the payment, and nothing of its payer.
        assert stranger.forms == []
        assert payer.phone not in stranger.source
        assert kept(stranger) == kept(receipt)
        arabic = await browser().get(f"{kept(receipt)}&lang=ar")
        assert (arabic.status, arabic.heading) == (200, "تمّ الدفع")
    assert ("Two chairs" in first.words, "A-17" in first.words, "A-17" in second.words) == (True, True, False)
    # The proof is for one payment of one code, and no proof is none.
    proof = kept(first).partition("?")[2]
    for path in (first.path, f"{first.path}?proof=", f"{first.path}?proof=é", f"{second.path}?{proof}"):
        assert (await browser().get(path)).heading in {"Paid already", "Pay Corner shop"}, path
    # The payer could show one payment under the purpose of another code of the same payee.
    for path in (f"/pay/{code}/receipt/{uuid4()}", f"/pay/{code}/receipt/{second.path.rsplit('/', 1)[1]}"):
        assert (await anns.get(f"{path}?{proof}")).status == 404, path
    assert (await anns.get(f"/pay/{static}/receipt/{first.path.rsplit('/', 1)[1]}")).status == 404
    assert (await anns.get(first.path)).heading == "Paid"


async def test_a_receipt_outlives_a_change_of_keys(
    shop: Person, person: MakePerson, browser: OpenBrowser, settings: Settings, service: Service
) -> None:
    payer, anns = await person(balance=10_000, kyc=1), browser()
    receipt = await anns.pay(await anns.sign_in(await link(shop, 1_000), payer.phone))
    new = {"jwt_secret": "another-jwt-secret-of-32-characters"}
    for previous, status in ((settings.jwt_secret, 200), ("", 410)):
        changed = settings.model_dump() | new | {"jwt_secret_previous": previous}
        async with TestServer(create_app(Settings.model_validate(changed), service)) as server:
            bobs = Browser(str(server.make_url("/")))
            assert (await bobs.get(kept(receipt))).status == status
            await bobs.close()
