"""The page tells whose service it is: name, logo, colour and help by settings, under the same strict policy."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from core.service import Service
from core.settings import Settings
from handlers.app import create_app
from handlers.pay_page.brand import DARK, LEAST_CONTRAST, LIGHT, contrast, on, readable
from tests.handlers.pay_page.page_reader import Browser, strict

pytestmark = pytest.mark.shared

HELP = "https://example.com/help?a=1&b=2"
LOGO = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


async def test_the_page_says_whose_it_is(settings: Settings, service: Service, tmp_path: Path) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_bytes(LOGO)
    brand: Any = {
        "brand_name": "Bank of <Aleppo>", "brand_color": "#AA0044", "brand_logo": str(logo), "brand_help_url": HELP,
    }  # fmt: skip
    app = create_app(Settings.model_validate(settings.model_dump() | brand), service)
    async with TestServer(app) as server:
        anns = Browser(str(server.make_url("/")))
        page = await anns.get("/pay")
        strict(page, HELP)
        assert page.title == "Pay – Bank of <Aleppo>"
        assert page.words.startswith(" Pay – Bank of <Aleppo> Bank of <Aleppo> Pay")
        assert HELP in [attributes.get("href") for tag, attributes in page.elements if tag == "a"]
        images = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
        async with anns.session.get(anns.base + str(*images)) as image:
            assert (await image.read(), image.content_type) == (LOGO, "image/svg+xml")
            # Opened by itself it is a document, whose script must not run here.
            assert "sandbox" in image.headers["Content-Security-Policy"]
            assert "default-src 'none'" in image.headers["Content-Security-Policy"]
        async with anns.session.get(anns.base + "/pay/files/brand.css") as style:
            assert style.content_type == "text/css"
            assert "--accent: #aa0044; --on-accent: #ffffff;" in await style.text()
        missing = await anns.get("/pay/none")
        assert "Bank of <Aleppo>" in missing.title
        await anns.close()


async def test_without_a_brand(settings: Settings, service: Service) -> None:
    async with TestServer(create_app(settings, service)) as server:
        anns = Browser(str(server.make_url("/")))
        page = await anns.get("/pay")
        assert "img" not in [tag for tag, _ in page.elements]
        assert (page.title, "Help" in page.words) == ("Pay – Tallystick", False)
        assert (await anns.get("/pay/files/logo")).status == 404
        await anns.close()


@given(st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}"))
def test_every_colour_can_be_read(color: str) -> None:
    for grounds, towards in ((LIGHT, "#000000"), (DARK, "#ffffff")):
        shown = readable(color, grounds, towards)
        assert min(contrast(shown, ground) for ground in (*grounds, on(shown))) >= LEAST_CONTRAST
        if all(contrast(color, ground) >= LEAST_CONTRAST for ground in grounds):
            assert shown == color


def test_the_grounds_are_those_of_the_style() -> None:
    style = (Path(__file__).parents[3] / "handlers/pay_page/static/pay.css").read_text()
    for ground, name in ((LIGHT[0], "page"), (DARK[0], "page"), (DARK[1], "card")):
        assert f"--{name}: {ground};" in style
