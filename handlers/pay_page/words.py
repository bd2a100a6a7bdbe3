"""The words of the payment page for refusals: a sentence for a person, and the field that it is about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from core.errors import Refusal
from handlers.pay_page.html import Trouble
from handlers.wallets.problems import problem_type

_LATER: Final = "{sentence} Try again in {wait}."
# Refusal code to sentence and field. A code that is missing here is told in the refusal's own words.
_SENTENCES: Final[Mapping[str, Trouble]] = {
    "invalid_phone": Trouble("Write your phone number with the country code: a plus, then digits.", "phone"),
    "invalid_otp": Trouble(
        "The code is wrong, was used, or is too old. Check it, or have another sent.", "otp"
    ),
    "otp_locked": Trouble("There were too many wrong codes.", "otp"),
    "otp_limited": Trouble("Too many codes were sent.", "phone"),
    "sms_failed": Trouble("The message could not be sent. Try again.", "phone"),
    "sign_in_waits": Trouble("Nobody can sign in at the moment. Nothing was paid."),
    "rate_limited": Trouble("That was too often."),
    "form_too_old": Trouble("This form was too old, so nothing happened. Please send it again."),
    "signed_out": Trouble("You are not signed in any more, so nothing was paid. Please sign in again."),
    "kyc_level_required": Trouble("Your account must be verified before it can pay here. Nothing was paid."),
    "insufficient_funds": Trouble("There is not enough in your wallet. Nothing was paid.", "amount"),
    "transfer_limit_exceeded": Trouble("This is more than you may pay at once. Nothing was paid.", "amount"),
    "daily_amount_exceeded": Trouble("This is more than you may pay today. Nothing was paid.", "amount"),
    "hourly_amount_exceeded": Trouble("This is more than you may pay within an hour. Nothing was paid."),
    "hourly_count_exceeded": Trouble("You have paid very often within an hour. Nothing was paid; try later."),
    "currency_mismatch": Trouble("Your wallet is in another currency. Nothing was paid."),
    "risk_blocked": Trouble("This payment was stopped for safety. Nothing was paid."),
    "qr_amount_required": Trouble("Say how much you pay.", "amount"),
    "link_amount_required": Trouble("Say how much you pay.", "amount"),
    "balance_overflow": Trouble("This amount is too large. Nothing was paid.", "amount"),
    "ceiling_exceeded": Trouble("The payee cannot take this much. Nothing was paid.", "amount"),
    "account_frozen": Trouble("One of the two wallets is frozen. Nothing was paid."),
    "account_closed": Trouble("One of the two wallets is closed. Nothing was paid."),
    "idempotency_conflict": Trouble(
        "With this form another amount was paid before. Nothing more was paid. To pay again, send it once more."
    ),
    "qr_not_active": Trouble("This code can be paid no more."),
    "link_not_active": Trouble("This link can be paid no more."),
    "qr_expired": Trouble("The time of this code is over."),
    "link_expired": Trouble("The time of this link is over."),
}
# Nobody knows whether the payment was made when a part is away; the form's key makes a second try safe.
_UNKNOWN: Final = "Your payment may not have arrived. Press the button again: it is paid only once."


def trouble_of(refusal: Refusal) -> Trouble:
    """Return the trouble by which a payer is told of a refusal."""
    if is_away(refusal):
        return Trouble(_UNKNOWN)
    trouble = _SENTENCES.get(refusal.code) or Trouble(refusal.detail)
    if refusal.code == "invalid_amount":
        trouble = Trouble(refusal.detail, "amount")
    if refusal.retry_after is not None:
        trouble = trouble._replace(
            sentence=_LATER.format(sentence=trouble.sentence, wait=_wait(refusal.retry_after))
        )
    return trouble


def is_away(refusal: Refusal) -> bool:
    """Whether a refusal says that a part of the service is away: a payment that was sent may then have been made."""
    unavailable = problem_type(refusal.code).status == web.HTTPServiceUnavailable.status_code
    return unavailable and refusal.code not in _SENTENCES


def _wait(seconds: float) -> str:
    whole = max(1, math.ceil(seconds))
    if whole < 100:
        return "a second" if whole == 1 else f"{whole} seconds"
    return f"{math.ceil(whole / 60)} minutes"
