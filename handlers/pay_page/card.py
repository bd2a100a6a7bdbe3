"""Payment of a code by card: the payer needs no account here, and pays on the page of the provider.

The key of the form is random and names the payment, so that its page is for whoever has its address, as a receipt is.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final

from core.errors import Refusal
from core.payables import codes
from core.payables.cards import codes as cards
from core.payments.refunds import FAILED
from core.payments.states import CLOSED_STATES, State
from handlers.pay_page.site import HOME
from handlers.wallets.contract import platform_of

if TYPE_CHECKING:
    from aiohttp import web

    from core.payables.codes import Offer
    from core.payments.payments import Payment
    from core.settings import Settings
    from handlers.http.route import Call
    from handlers.pay_page.visit import Visit

KEY_BYTES: Final = 16
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{22}")


def key_for(settings: Settings, offer: Offer) -> str | None:
    """Return a key for the form of an offer, None where it is not paid by card."""
    return secrets.token_urlsafe(KEY_BYTES) if settings.pay_page_cards and offer.amount is not None else None


async def pay_by_card(call: Call) -> web.Response:
    """Ask the provider for a page to pay on. A second press has the form's key, and is the same payment."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    visit.check_form()
    key = visit.fields.get("card_key", "")
    if not platform.settings.pay_page_cards or _KEY.fullmatch(key) is None or offer.amount is None:
        return visit.go(offer.code)
    base = str(platform.settings.public_base_url) or str(call.request.url.origin())
    path = f"{HOME}/{offer.code}/card/{key}"
    try:
        await cards.start(call.parts.payments, platform, offer, key, base.rstrip("/") + path)
    except Refusal as refusal:
        if refusal.code != "no_provider":
            # The page of the code says what stands in the way, if anything does.
            return visit.go(offer.code)
        return _page(visit, 503, offer, "away")
    return visit.go_to(path)


async def show_card(call: Call) -> web.Response:
    """Show how a payment by card stands, with the way to the provider's page."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    payment = await cards.show(call.parts.payments, offer, call.path("key"))
    if payment is None:
        return visit.go(offer.code)
    state = _state(payment, await cards.return_of(call.parts.payments, payment))
    return _page(visit, 200, offer, state, payment.current.url if state == "pending" else None)


def _state(payment: Payment, returned: str | None) -> str:
    if payment.state in CLOSED_STATES:
        return "closed"
    if payment.state is State.PENDING and payment.current.url and payment.wish is None:
        return "pending"
    if payment.state is State.PAID:
        if returned is None:
            return "paid"
        return "kept" if returned == FAILED else "returned"
    return "mismatched" if payment.state is State.MISMATCHED else "processing"


def _page(visit: Visit, status: int, offer: Offer, state: str, url: str | None = None) -> web.Response:
    here = visit.request.path
    return visit.show(
        status, "card.html", offer=offer, home=f"{HOME}/{offer.code}", state=state, url=url, here=here
    )
