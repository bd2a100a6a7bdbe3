"""The steps of a payment on the payment page: the offer, the amount and its second look, the payment, the receipt."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from core.errors import Refusal, Unavailable
from core.money import decimals
from core.payables import codes
from core.payables.codes import Outlook
from core.wallets import amounts
from handlers.pay_page.card import key_for
from handlers.pay_page.visit import Visit
from handlers.pay_page.words import (
    NOT_PAYABLE,
    amount_example,
    closed_words,
    is_away,
    is_the_payees,
    phone_examples,
    trouble_of,
)
from handlers.wallets.contract import optional_key, platform_of

if TYPE_CHECKING:
    from aiohttp import web

    from core.payables.codes import Offer
    from core.wallets.users import User
    from handlers.http.route import Call
    from handlers.pay_page.words import Trouble

KEY_BYTES: Final = 16
# The codes of refusals of a payable that ended while its payer looked at it.
_ENDED: Final = frozenset({"qr_not_active", "qr_expired", "link_not_active", "link_expired"})
_NOTHING_KNOWN: Final = Outlook(None)


async def show_payable(call: Call) -> web.Response:
    """Show the offer of a code and the next step: to give a phone number, or to pay."""
    return await next_step(call, await codes.find(platform_of(call), call.path("code")))


async def next_step(call: Call, offer: Offer, refusal: Refusal | None = None) -> web.Response:
    """Show the next step. All that is known to stand in the way is said at once, before a message is sent."""
    visit: Visit = call.body
    if offer.state != "open":
        return _closed(visit, offer)
    outlook = await _outlook(call, offer)
    if outlook.obstacle is not None and _is_everybodys(outlook.obstacle, offer):
        return _not_payable(visit, offer, outlook.obstacle)
    if visit.user is None:
        return show_phone(call, offer, refusal)
    if outlook.obstacle is not None:
        return _obstacle(call, offer, visit.user, outlook, refusal)
    return _ready(visit, offer, outlook, refusal)


def show_phone(call: Call, offer: Offer, refusal: Refusal | None = None, typed: str = "") -> web.Response:
    """Ask for the phone."""
    visit: Visit = call.body
    settings = platform_of(call).settings
    return visit.show_offer(
        "phone.html",
        offer,
        _trouble(visit, offer, refusal),
        refusal,
        typed=typed,
        example=phone_examples(),
        verified_only=settings.kyc_min_level_for_merchant_pay > 0,
        env_dev=settings.env == "dev",
        card_key=key_for(settings, offer),
    )


async def review(call: Call) -> web.Response:
    """Show the amount that the payer typed once more, before anything is paid."""
    visit: Visit = call.body
    offer = await codes.find(platform_of(call), call.path("code"))
    if offer.amount is not None:
        return visit.go(offer.code)
    typed = visit.fields.get("amount", "")
    key = None
    try:
        _, key = _payer_and_key(visit)
        amount = amounts.read(typed, offer.currency)
        outlook = await _outlook(call, offer, amount)
        if outlook.obstacle is not None:
            raise outlook.obstacle
    except Refusal as refusal:
        return await _unpaid(call, offer, refusal, key, typed)
    return visit.show_offer(
        "review.html", offer, None, None, key=key, typed=typed, amount=amount, available=outlook.available
    )


async def confirm(call: Call) -> web.Response:
    """Pay. A second press, or a second try after a lost answer, has the form's key and is the same payment."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    typed = visit.fields.get("amount", "")
    key = None
    try:
        payer, key = _payer_and_key(visit)
        amount = amounts.read(typed, offer.currency) if offer.amount is None else None
        paid = await codes.pay(platform, payer, offer, amount, key)
    except Refusal as refusal:
        return await _unpaid(call, offer, refusal, key, typed)
    return visit.go_to(visit.receipt_path(offer, paid.transfer_id))


async def show_receipt(call: Call) -> web.Response:
    """Show a payment to its payer, and to everybody who has the receipt's whole address."""
    visit: Visit = call.body
    platform = platform_of(call)
    offer = await codes.find(platform, call.path("code"))
    try:
        transfer_id = UUID(call.path("transfer"))
    except ValueError:
        raise Refusal("receipt_not_found", "You have no such payment.") from None
    if not _may_see(visit, offer, transfer_id):
        if visit.user is None:
            return visit.go(offer.code)
        raise Refusal("receipt_not_found", "You have no such payment.")
    found = await codes.receipt(platform, offer, transfer_id)
    kept = visit.receipt_path(offer, transfer_id)
    return visit.show_offer("receipt.html", offer, None, None, paid=found, kept=kept, available=None)


def _may_see(visit: Visit, offer: Offer, transfer_id: UUID) -> bool:
    """Whether the request comes with a receipt's proof, or from the payer of a code that was paid once.

    Without the proof nobody sees a payment of a code that is paid often: the ledger does not know by which of the
    payee's codes it was paid, so its receipt could be shown under the purpose of another one.
    """
    its_payer = visit.user is not None and (visit.user.id, transfer_id) == (
        offer.settled_by,
        offer.transfer_id,
    )
    return its_payer or visit.holds_receipt(offer, transfer_id)


def _payer_and_key(visit: Visit) -> tuple[User, str]:
    """Return the payer and the payment's key of a genuine form. Raises Refusal `signed_out`, `form_too_old`."""
    if visit.user is None:
        raise Refusal("signed_out", "The sign-in is over.")
    visit.check_form()
    key = optional_key(visit.fields.get("key"))
    if key is None:
        raise Refusal("form_too_old", "The form has no key.")
    return visit.user, key


async def _outlook(call: Call, offer: Offer, amount: int | None = None) -> Outlook:
    """Return what is known of a payment; nothing while the database is away, since a form's key is worth showing."""
    visit: Visit = call.body
    try:
        return await codes.outlook(platform_of(call), offer, visit.user, amount)
    except Unavailable:
        return _NOTHING_KNOWN


async def _unpaid(call: Call, offer: Offer, refusal: Refusal, key: str | None, typed: str) -> web.Response:
    """Say why nothing was paid, in the form to send again, if there is anything left to pay."""
    visit: Visit = call.body
    if visit.user is None or key is None:
        return await next_step(call, offer, refusal)
    if refusal.code in _ENDED:
        return await next_step(call, await codes.find(platform_of(call), offer.code), refusal)
    if _is_everybodys(refusal, offer):
        return _not_payable(visit, offer, refusal)
    if refusal.code == "idempotency_conflict":
        key = None
    outlook = await _outlook(call, offer)
    # A payment that may have arrived is asked for again under its key, whatever is known to stand in the way by now.
    if outlook.obstacle is not None and not is_away(refusal):
        if _is_everybodys(outlook.obstacle, offer):
            return _not_payable(visit, offer, outlook.obstacle)
        return _obstacle(call, offer, visit.user, outlook, refusal)
    return _ready(visit, offer, outlook, refusal, key, typed)


def _ready(
    visit: Visit,
    offer: Offer,
    outlook: Outlook,
    refusal: Refusal | None,
    key: str | None = None,
    typed: str = "",
) -> web.Response:
    """Ask whether to pay, or how much where the code leaves it open."""
    values: dict[str, Any] = {
        "key": key or secrets.token_urlsafe(KEY_BYTES),
        "typed": typed,
        "available": outlook.available,
        "amount_example": amount_example(offer.currency),
        "keyboard": "decimal" if decimals(offer.currency) else "numeric",
    }
    trouble = _trouble(visit, offer, refusal)
    if offer.amount is None and refusal is not None and is_away(refusal):
        # The amount stands fixed beside the key: the same form sent again is the same payment.
        values["amount"] = amounts.read(typed, offer.currency)
        return visit.show_offer("review.html", offer, trouble, refusal, **values)
    template = "amount.html" if offer.amount is None else "confirm.html"
    return visit.show_offer(template, offer, trouble, refusal, **values)


def _obstacle(
    call: Call, offer: Offer, payer: User, outlook: Outlook, refusal: Refusal | None
) -> web.Response:
    """Say what the payer can mend before the payment, with the way on."""
    visit: Visit = call.body
    obstacle = outlook.obstacle or refusal
    if obstacle is None:
        raise LookupError("there is no obstacle to tell of")
    missing = 0
    if obstacle.code == "insufficient_funds" and offer.amount is not None and outlook.available is not None:
        missing = max(0, offer.amount - outlook.available)
    return visit.show_offer(
        "obstacle.html",
        offer,
        _trouble(visit, offer, refusal or obstacle),
        refusal,
        amount=None,
        missing=missing,
        verification=_verification(call, payer) if obstacle.code == "kyc_level_required" else None,
        available=outlook.available,
    )


def _verification(call: Call, payer: User) -> str | None:
    """Return the payer's way to verification: `own` (development), `ask`, `asked`, None for one who is verified."""
    if platform_of(call).settings.env == "dev" and payer.kyc_level == 0:
        return "own"
    return {"none": "ask", "rejected": "ask", "pending": "asked"}.get(payer.kyc_status)


def _closed(visit: Visit, offer: Offer) -> web.Response:
    """Say that a code can be paid no more, with the way to its payer's receipt."""
    receipt = None
    if visit.user is not None and visit.user.id == offer.settled_by:
        receipt = f"/pay/{offer.code}/receipt/{offer.transfer_id}"
    heading, sentence = closed_words(offer.state, visit.language)
    return visit.show(410, "closed.html", offer=offer, heading=heading, sentence=sentence, receipt=receipt)


def _is_everybodys(obstacle: Refusal, offer: Offer) -> bool:
    """Whether nobody can pay an open code at the moment."""
    return obstacle.code == "currency_mismatch" or is_the_payees(obstacle, offer)


def _not_payable(visit: Visit, offer: Offer, obstacle: Refusal) -> web.Response:
    sentence = trouble_of(obstacle, visit.language, offer).sentence
    heading = visit.language.say(NOT_PAYABLE)
    return visit.show(409, "closed.html", offer=offer, heading=heading, sentence=sentence, receipt=None)


def _trouble(visit: Visit, offer: Offer, refusal: Refusal | None) -> Trouble | None:
    return None if refusal is None else trouble_of(refusal, visit.language, offer)
