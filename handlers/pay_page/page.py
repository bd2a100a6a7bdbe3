"""The payment page: the offer of a code, the sign-in by a code sent to the phone, the payment, the receipt.

Each step is a form, and a GET after it, so the page needs no script. Its rules are those of the API, in `core.wallets`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from core.errors import Refusal
from core.payables import codes
from handlers.http.route import Call, Route, table
from handlers.pay_page.card import pay_by_card, show_card
from handlers.pay_page.paying import confirm, review, show_payable, show_receipt
from handlers.pay_page.signing import ask_verification, send_code, show_verify, sign_out, verify
from handlers.pay_page.surface import PageSurface
from handlers.pay_page.visit import Visit
from handlers.wallets.contract import platform_of

_FOLDER = Path(str(resources.files("handlers.pay_page"))) / "static"
_FILES: Final = {"pay.css": "text/css; charset=utf-8", "pay.js": "text/javascript; charset=utf-8"}
# A logo that is an SVG may hold a script, which must not run where somebody opens the logo itself.
_IMAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


async def show_start(call: Call) -> web.Response:
    """Ask for a code, or go to the one in the query."""
    visit: Visit = call.body
    code = call.request.query.get("code", "")
    if not code.strip():
        return visit.show(200, "code.html")
    offer = await codes.find(platform_of(call), code)
    return visit.go(offer.code)


async def go_back(call: Call) -> web.Response:
    """Send a visitor who opens the address of a form, as from a browser's history, to the offer of the code."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    return visit.go(offer.code)


async def show_file(call: Call) -> web.StreamResponse:
    """Answer the page's style, script or logo."""
    visit: Visit = call.body
    name, brand = call.path("file"), visit.site.brand
    headers: dict[str, str] = {hdrs.CACHE_CONTROL: "public, max-age=3600"}
    if name in _FILES:
        return web.FileResponse(_FOLDER / name, headers=headers | {hdrs.CONTENT_TYPE: _FILES[name]})
    if name == "brand.css":
        return web.Response(body=brand.style, headers=headers | {hdrs.CONTENT_TYPE: _FILES["pay.css"]})
    if name == "logo" and brand.logo is not None:
        headers |= {hdrs.CONTENT_TYPE: brand.logo.media_type, "Content-Security-Policy": _IMAGE_POLICY}
        return web.Response(body=brand.logo.data, headers=headers)
    raise Refusal("not_found", "There is no such file.")


ROUTES = table(
    Route("GET", "/pay", show_start, "pay_page", "Enter a code"),
    Route("GET", "/pay/files/{file}", show_file, "pay_page_file", "The page's files", limited=False),
    Route("GET", "/pay/{code}", show_payable, "pay_page_payable", "Show the offer of a code"),
    Route("POST", "/pay/{code}/phone", send_code, "pay_page_phone", "Send a sign-in code"),
    Route("GET", "/pay/{code}/verify", show_verify, "pay_page_verify", "Ask for the sign-in code"),
    Route("POST", "/pay/{code}/verify", verify, "pay_page_code", "Sign in"),
    Route("POST", "/pay/{code}/verification", ask_verification, "pay_page_verification", "Be verified"),
    Route("POST", "/pay/{code}/amount", review, "pay_page_amount", "Look at the amount again"),
    Route("POST", "/pay/{code}/confirm", confirm, "pay_page_confirm", "Pay"),
    Route("POST", "/pay/{code}/card", pay_by_card, "pay_page_card", "Pay by card"),
    Route("GET", "/pay/{code}/card/{key}", show_card, "pay_page_card_payment", "Show a payment by card"),
    *(
        Route("GET", f"/pay/{{code}}/{step}", go_back, f"pay_page_from_{step.replace('-', '_')}", "Go back")
        for step in ("phone", "verification", "amount", "confirm", "card", "sign-out")
    ),
    Route("GET", "/pay/{code}/receipt/{transfer}", show_receipt, "pay_page_receipt", "The receipt"),
    Route("POST", "/pay/{code}/sign-out", sign_out, "pay_page_sign_out", "End the sign-in"),
    tag="payment page", hidden=True, needs_service=False,
)  # fmt: skip
PAY_PAGE = PageSurface("payment page", ROUTES)
