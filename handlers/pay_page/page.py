"""The payment page: the offer of a code, the sign-in by a code sent to the phone, the payment, the receipt.

Each step is a form, and a GET after it, so the page needs no script. Its rules are those of the API, in `core.wallets`.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Final
from uuid import UUID

from aiohttp import hdrs, web

from core.errors import Refusal, Unavailable
from core.identity import sessions, sign_in
from core.identity.sign_in import Client
from core.payables import codes
from core.payables.codes import Offer
from core.phones import normalized
from core.wallets import amounts
from core.wallets.balances import read_balance
from core.wallets.users import User
from handlers.http.route import Call, Route, table
from handlers.pay_page.html import (
    PageForm,
    Payer,
    Trouble,
    closed_page,
    code_page,
    confirm_page,
    phone_page,
    receipt_page,
    verify_page,
)
from handlers.pay_page.visit import PHONE, SESSION, PageSurface, Visit
from handlers.pay_page.words import trouble_of
from handlers.wallets.contract import optional_key, platform_of

_FOLDER = Path(str(resources.files("handlers.pay_page"))) / "static"
_FILES: Final = {"pay.css": "text/css; charset=utf-8", "pay.js": "text/javascript; charset=utf-8"}
# The cookie of a page that waits for a code: a phone as the API takes it, and the name of the sign-in.
_PHONE = re.compile(r"\+[0-9]{6,31}")
_WAITING = re.compile(r"(\+[0-9]{6,31})\.([A-Za-z0-9_-]{1,64})")
KEY_BYTES: Final = 16
# The codes of refusals of a payable that ended while its payer looked at it.
_ENDED: Final = frozenset({"qr_not_active", "qr_expired", "link_not_active", "link_expired"})


async def show_start(call: Call) -> web.Response:
    """Ask for a code, or go to the one in the query."""
    visit: Visit = call.body
    code = call.request.query.get("code", "")
    if not code.strip():
        return visit.show(200, code_page())
    offer = await codes.find(platform_of(call), code)
    return visit.go(offer.code)


async def show_payable(call: Call) -> web.Response:
    """Show the offer of a code and the next step: to give a phone number, or to pay."""
    offer = await codes.find(platform_of(call), call.path("code"))
    return await _next_step(call, offer)


async def send_code(call: Call) -> web.Response:
    """Send a sign-in code to the phone."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    typed = visit.fields.get("phone", "")
    try:
        _check_form(visit)
        phone = normalized(_western(typed))
        if _PHONE.fullmatch(phone) is None:
            raise Refusal("invalid_phone", "A phone number is a plus and digits.")
        sent = await sign_in.request_code(call.parts.identity, phone, _client(call))
    except Refusal as refusal:
        trouble = trouble_of(refusal)
        return visit.refuse(refusal, phone_page(offer, _form(visit, offer, trouble), typed))
    visit.set_cookie(PHONE, f"{phone}.{sent.session}", platform_of(call).settings.otp_ttl_secs)
    return visit.go(offer.code, "verify")


async def show_verify(call: Call) -> web.Response:
    """Ask for the sign-in code."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    waiting = _WAITING.fullmatch(visit.cookie(PHONE))
    if waiting is None or visit.user is not None or offer.state != "open":
        return visit.go(offer.code)
    return visit.show(200, verify_page(offer, _form(visit, offer), waiting[1], _dev_code(call)))


async def verify(call: Call) -> web.Response:
    """Sign in with the code, for some minutes."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    waiting = _WAITING.fullmatch(visit.cookie(PHONE))
    if waiting is None:
        return visit.go(offer.code)
    phone, session = waiting.groups()
    try:
        _check_form(visit)
        code = re.sub(r"[\s-]", "", _western(visit.fields.get("otp", "")))
        # The contract's reset of development would leave nobody here who may pay.
        signed_in = await sign_in.verify_code(
            call.parts.identity, phone, code, session, None, _client(call), resets=False
        )
    except Refusal as refusal:
        form = _form(visit, offer, trouble_of(refusal))
        return visit.refuse(refusal, verify_page(offer, form, phone, _dev_code(call)))
    visit.set_cookie(PHONE, "")
    visit.set_cookie(SESSION, signed_in.access_token, signed_in.expires_in)
    return visit.go(offer.code)


async def confirm(call: Call) -> web.Response:
    """Pay. A second press, or a second try after a lost answer, has the form's key and is the same payment."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    typed = visit.fields.get("amount", "")
    key = None
    try:
        _check_form(visit)
        if visit.user is None:
            raise Refusal("signed_out", "The sign-in is over.")
        key = optional_key(visit.fields.get("key"))
        if key is None:
            raise Refusal("form_too_old", "The form has no key.")
        amount = amounts.read(typed, offer.currency) if offer.amount is None else None
        paid = await codes.pay(platform, visit.user, offer, amount, key)
    except Refusal as refusal:
        return await _unpaid(call, offer, refusal, key, typed)
    return visit.go(offer.code, "receipt", str(paid.transfer_id))


async def show_receipt(call: Call) -> web.Response:
    """Show a payment to its payer."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    if visit.user is None:
        return visit.go(offer.code)
    try:
        transfer_id = UUID(call.path("transfer"))
    except ValueError:
        raise Refusal("receipt_not_found", "You have no such payment.") from None
    found = await codes.receipt(platform, visit.user, offer, transfer_id)
    return visit.show(200, receipt_page(_form(visit, offer), found))


async def sign_out(call: Call) -> web.Response:
    """End the sign-in."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    _check_form(visit)
    if visit.user is not None and visit.session_id is not None:
        # A sign-in that was ended elsewhere meanwhile is no trouble.
        with suppress(Refusal):
            await sessions.end(platform_of(call).database, visit.user, visit.session_id)
    visit.set_cookie(SESSION, "")
    return visit.go(offer.code)


async def go_back(call: Call) -> web.Response:
    """Send a visitor who opens the address of a form, as from a browser's history, to the offer of the code."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    return visit.go(offer.code)


async def show_file(call: Call) -> web.StreamResponse:
    """Answer the page's style or script."""
    media_type = _FILES.get(call.path("file"))
    if media_type is None:
        raise Refusal("not_found", "There is no such file.")
    headers = {hdrs.CONTENT_TYPE: media_type, hdrs.CACHE_CONTROL: "public, max-age=3600"}
    return web.FileResponse(_FOLDER / call.path("file"), headers=headers)


async def _next_step(call: Call, offer: Offer, refusal: Refusal | None = None) -> web.Response:
    """Show the next step. A payer who comes too late is told so, with the way to the receipt."""
    visit: Visit = call.body
    if offer.state != "open":
        receipt = None
        if visit.user is not None and visit.user.id == offer.settled_by:
            receipt = f"/pay/{offer.code}/receipt/{offer.transfer_id}"
        return visit.show(410, closed_page(offer, receipt))
    form = _form(visit, offer, None if refusal is None else trouble_of(refusal))
    body = phone_page(offer, form) if visit.user is None else await _confirm(call, visit.user, offer, form)
    return visit.show(200, body) if refusal is None else visit.refuse(refusal, body)


async def _unpaid(call: Call, offer: Offer, refusal: Refusal, key: str | None, typed: str) -> web.Response:
    """Say why nothing was paid, in the form to send again, if there is anything left to pay."""
    visit: Visit = call.body
    if visit.user is None or key is None:
        return await _next_step(call, offer, refusal)
    if refusal.code in _ENDED:
        return await _next_step(call, await codes.find(platform_of(call), offer.code), refusal)
    if refusal.code == "idempotency_conflict":
        key = None
    form = _form(visit, offer, trouble_of(refusal))
    return visit.refuse(refusal, await _confirm(call, visit.user, offer, form, key, typed))


async def _confirm(
    call: Call, user: User, offer: Offer, form: PageForm, key: str | None = None, typed: str = ""
) -> bytes:
    try:
        standing = await read_balance(platform_of(call), user)
        payer = Payer(user.phone, standing.balance - standing.held, standing.currency)
    except Unavailable:
        # The page shows the form without a balance rather than no form: its key keeps a second try safe.
        payer = Payer(user.phone, None, offer.currency)
    return confirm_page(offer, form, payer, key or secrets.token_urlsafe(KEY_BYTES), typed)


def _check_form(visit: Visit) -> None:
    if not visit.genuine:
        raise Refusal("form_too_old", "This form is not one that we gave to this browser.")


def _form(visit: Visit, offer: Offer, trouble: Trouble | None = None) -> PageForm:
    return PageForm(offer.code, visit.token, trouble)


def _client(call: Call) -> Client:
    """Return the client of the call. Its refresh token is dropped; the short access token comes only with one."""
    return Client(call.address, call.request.headers.get(hdrs.USER_AGENT, ""), refresh=True)


def _dev_code(call: Call) -> str | None:
    identity = call.parts.identity
    return str(identity.platform.settings.otp_dev_code) if identity.codes.dev else None


def _western(text: str) -> str:
    """Return a text with the digits 0 to 9 in the place of those of other scripts."""
    return "".join(str(int(character)) if character.isdecimal() else character for character in text)


ROUTES = table(
    Route("GET", "/pay", show_start, "pay_page", "Enter a code"),
    Route("GET", "/pay/files/{file}", show_file, "pay_page_file", "The page's files", limited=False),
    Route("GET", "/pay/{code}", show_payable, "pay_page_payable", "Show the offer of a code"),
    Route("POST", "/pay/{code}/phone", send_code, "pay_page_phone", "Send a sign-in code"),
    Route("GET", "/pay/{code}/verify", show_verify, "pay_page_verify", "Ask for the sign-in code"),
    Route("POST", "/pay/{code}/verify", verify, "pay_page_code", "Sign in"),
    Route("POST", "/pay/{code}/confirm", confirm, "pay_page_confirm", "Pay"),
    *(
        Route("GET", f"/pay/{{code}}/{step}", go_back, f"pay_page_from_{step.replace('-', '_')}", "Go back")
        for step in ("phone", "confirm", "sign-out")
    ),
    Route("GET", "/pay/{code}/receipt/{transfer}", show_receipt, "pay_page_receipt", "The receipt"),
    Route("POST", "/pay/{code}/sign-out", sign_out, "pay_page_sign_out", "End the sign-in"),
    tag="payment page", hidden=True,
)  # fmt: skip
PAY_PAGE = PageSurface("payment page", ROUTES)
