"""The payer's sign-in on the payment page: phone, code, verification, sign-out."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import hdrs

from core.errors import Refusal
from core.identity import sessions, sign_in
from core.identity.sign_in import Client
from core.payables import codes
from core.phones import normalized, western
from core.wallets import kyc
from handlers.pay_page.paying import next_step, show_phone
from handlers.pay_page.visit import PHONE, SESSION, Visit
from handlers.pay_page.words import trouble_of
from handlers.wallets.contract import platform_of

if TYPE_CHECKING:
    from aiohttp import web

    from handlers.http.route import Call

# The cookie of a page that waits for a code: a phone as the API takes it, and the name of the sign-in.
_PHONE = re.compile(r"\+[0-9]{6,31}")
_WAITING = re.compile(r"(\+[0-9]{6,31})\.([A-Za-z0-9_-]{1,64})")


async def send_code(call: Call) -> web.Response:
    """Send a sign-in code to the phone, if the code can be paid at all: a message costs money."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    typed = visit.fields.get("phone", "")
    try:
        visit.check_form()
        if visit.user is not None or offer.state != "open":
            return visit.go(offer.code)
        if (await codes.outlook(platform, offer)).obstacle is not None:
            return visit.go(offer.code)
        phone = normalized(western(typed))
        if _PHONE.fullmatch(phone) is None:
            raise Refusal("invalid_phone", "A phone number is a plus and digits.")
        sent = await sign_in.request_code(call.parts.identity, phone, _client(call))
    except Refusal as refusal:
        if visit.user is not None or offer.state != "open":
            return await next_step(call, offer, refusal)
        return show_phone(call, offer, refusal, typed)
    visit.set_cookie(PHONE, f"{phone}.{sent.session}", platform.settings.otp_ttl_secs)
    return visit.go(offer.code, "verify")


async def show_verify(call: Call) -> web.Response:
    """Ask for the sign-in code."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    waiting = _WAITING.fullmatch(visit.cookie(PHONE))
    if waiting is None or visit.user is not None or offer.state != "open":
        return visit.go(offer.code)
    return visit.show_offer(
        "verify.html", offer, None, None, waiting_phone=waiting[1], dev_code=_dev_code(call)
    )


async def verify(call: Call) -> web.Response:
    """Sign in with the code, for some minutes."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    waiting = _WAITING.fullmatch(visit.cookie(PHONE))
    if waiting is None:
        return visit.go(offer.code)
    phone, session = waiting.groups()
    try:
        visit.check_form()
        code = re.sub(r"[\s-]", "", western(visit.fields.get("otp", "")))
        # The contract's reset of development would leave nobody here who may pay.
        signed_in = await sign_in.verify_code(
            call.parts.identity, phone, code, session, None, _client(call), resets=False
        )
    except Refusal as refusal:
        trouble = trouble_of(refusal, visit.language, offer)
        return visit.show_offer(
            "verify.html", offer, trouble, refusal, waiting_phone=phone, dev_code=_dev_code(call)
        )
    visit.set_cookie(PHONE, "")
    visit.set_cookie(SESSION, signed_in.access_token, signed_in.expires_in)
    visit.renew()
    return visit.go(offer.code)


async def ask_verification(call: Call) -> web.Response:
    """Have the payer verified: by themselves in development, elsewhere by an administrator."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    try:
        if visit.user is None:
            raise Refusal("signed_out", "The sign-in is over.")
        visit.check_form()
        if platform.settings.env == "dev":
            await kyc.approve_oneself(platform, visit.user)
        else:
            await kyc.submit(platform, visit.user)
    except Refusal as refusal:
        return await next_step(call, offer, refusal)
    return visit.go(offer.code)


async def sign_out(call: Call) -> web.Response:
    """End the sign-in."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    if visit.user is None:
        return visit.go(offer.code)
    visit.check_form()
    if visit.session_id is not None:
        # A sign-in that was ended elsewhere meanwhile is no trouble.
        with suppress(Refusal):
            await sessions.end(platform_of(call).database, visit.user, visit.session_id)
    visit.set_cookie(SESSION, "")
    visit.renew()
    return visit.go(offer.code)


def _client(call: Call) -> Client:
    """Return the client of the call. Its refresh token is dropped; the short access token comes only with one."""
    return Client(call.address, call.request.headers.get(hdrs.USER_AGENT, ""), refresh=True)


def _dev_code(call: Call) -> str | None:
    """Return the fixed code of a development service, which is no secret."""
    identity = call.parts.identity
    return str(identity.platform.settings.otp_dev_code) if identity.codes.dev else None
