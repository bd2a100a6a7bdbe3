"""The words of the payment page for refusals: a sentence for a person, and the field that it is about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import phonenumbers
from aiohttp import web
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from core.errors import Refusal
from core.money import decimals
from core.phones import HOME_PREFIX
from handlers.pay_page.languages import n_
from handlers.wallets.problems import problem_type

if TYPE_CHECKING:
    from core.payables.codes import Offer
    from handlers.pay_page.languages import Language


class Trouble(NamedTuple):
    """A sentence for a person about what went wrong, and the field that it is about, None if there is none."""

    sentence: str
    field: str | None = None


class PhoneExamples(NamedTuple):
    """One phone as it is dialled at home, and with its country code."""

    national: str
    international: str


# Refusal code to sentence and field.
_SENTENCES: Final[Mapping[str, Trouble]] = {
    "invalid_phone": Trouble(
        n_("Write your phone number as you dial it, or with the country code."), "phone"
    ),
    "invalid_otp": Trouble(
        n_("The code is wrong, was used, or is too old. Check it, or have another sent."), "otp"
    ),
    "otp_locked": Trouble(n_("There were too many wrong codes."), "otp"),
    "otp_limited": Trouble(n_("Too many codes were sent."), "phone"),
    "sms_failed": Trouble(n_("The message could not be sent. Try again."), "phone"),
    "sign_in_waits": Trouble(n_("Nobody can sign in at the moment. Nothing was paid.")),
    "rate_limited": Trouble(n_("That was too often.")),
    "form_too_old": Trouble(n_("This form was too old, so nothing happened. Please send it again.")),
    "signed_out": Trouble(n_("You are not signed in any more, so nothing was paid. Please sign in again.")),
    "kyc_level_required": Trouble(
        n_("Your account must be verified before it can pay here. Nothing was paid.")
    ),
    "insufficient_funds": Trouble(n_("There is not enough in your wallet. Nothing was paid."), "amount"),
    "transfer_limit_exceeded": Trouble(
        n_("This is more than you may pay at once. Nothing was paid."), "amount"
    ),
    "daily_amount_exceeded": Trouble(n_("This is more than you may pay today. Nothing was paid."), "amount"),
    "hourly_amount_exceeded": Trouble(n_("This is more than you may pay within an hour. Nothing was paid.")),
    "hourly_count_exceeded": Trouble(
        n_("You have paid very often within an hour. Nothing was paid; try later.")
    ),
    "daily_count_exceeded": Trouble(n_("You have paid very often today. Nothing was paid; try tomorrow.")),
    "phone_not_proven": Trouble(
        n_("Your phone must be proven by a code first. Sign out, and sign in again.")
    ),
    "currency_mismatch": Trouble(
        n_("This code is in a currency that wallets here do not have. Ask for another one.")
    ),
    "risk_blocked": Trouble(n_("This payment was stopped for safety. Nothing was paid.")),
    "qr_amount_required": Trouble(n_("Say how much you pay."), "amount"),
    "link_amount_required": Trouble(n_("Say how much you pay."), "amount"),
    "balance_overflow": Trouble(n_("This amount is too large. Nothing was paid."), "amount"),
    "ceiling_exceeded": Trouble(n_("The payee cannot take this much. Nothing was paid."), "amount"),
    "account_frozen": Trouble(n_("Your wallet is frozen: no money leaves it. Nothing was paid.")),
    "account_closed": Trouble(n_("Your wallet is closed. Nothing was paid.")),
    "idempotency_conflict": Trouble(
        n_(
            "With this form another amount was paid before. Nothing more was paid. To pay again, send it once more."
        )
    ),
    "qr_not_active": Trouble(n_("This code can be paid no more.")),
    "link_not_active": Trouble(n_("This link can be paid no more.")),
    "qr_expired": Trouble(n_("The time of this code is over.")),
    "link_expired": Trouble(n_("The time of this link is over.")),
    "code_not_found": Trouble(n_("There is no such code. Check the link, or scan the code again.")),
    "receipt_not_found": Trouble(n_("You have no such payment.")),
    "not_found": Trouble(n_("There is no such page.")),
    "invalid_request": Trouble(n_("This page takes its own forms only.")),
    "unsupported_media_type": Trouble(n_("This page takes its own forms only.")),
    "payload_too_large": Trouble(n_("This page takes its own forms only.")),
}
# The member of a refusal that tells an amount in minor units, and the sentence for it.
_FIGURES: Final[Mapping[str, tuple[str, str]]] = {
    "transfer_limit_exceeded": ("limit_cents", n_("At once you may pay up to %(amount)s")),
    "daily_amount_exceeded": ("left_cents", n_("Left for today: %(amount)s")),
    "hourly_amount_exceeded": ("left_cents", n_("Left for this hour: %(amount)s")),
}
_HEADINGS: Final[Mapping[str, str]] = {
    "code_not_found": n_("Code not found"),
    "receipt_not_found": n_("Receipt not found"),
    "not_found": n_("Not found"),
    "rate_limited": n_("Too many requests"),
    "form_too_old": n_("This form was too old"),
    "signed_out": n_("Not signed in"),
}
_OTHER_HEADING: Final = n_("This did not work")
_OTHER: Final = n_("This did not work. Nothing was paid.")
_AMOUNT: Final = n_("Write an amount above zero, such as %(example)s.")
_AMOUNT_FAULTS: Final = {
    "too_large": n_("This amount is too large. Write a smaller one, such as %(example)s."),
    "decimals": n_("This amount has too many digits behind the point. Write it such as %(example)s."),
    "separators": n_(
        "The points and commas of this amount are not clear. Write it plainly, such as %(example)s."
    ),
}
_PAYEE_AWAY: Final = n_("The payee cannot be paid at the moment. Ask the payee.")
_LATER: Final = n_("%(sentence)s Try again in %(wait)s.")
# Nobody knows whether the payment was made when a part is away; the form's key makes a second try safe.
_UNKNOWN: Final = n_("Your payment may not have arrived. Press the button again: it is paid only once.")
_AWAY: Final = n_(
    "A part of the service is away for the moment. Reload the page soon: nothing is paid twice."
)
_CLOSED: Final = {
    "paid": (n_("Paid already"), n_("This code has been paid. There is nothing left to pay.")),
    "expired": (n_("Too late"), n_("The time of this code is over. Ask for a new one.")),
}
_WITHDRAWN: Final = (n_("Withdrawn"), n_("This code was withdrawn. Ask for a new one."))
_BROKEN: Final = (
    n_("Something went wrong"),
    n_("Something went wrong on our side. Its number is %(number)s."),
)
NOT_PAYABLE: Final = n_("This cannot be paid now")


def trouble_of(refusal: Refusal, language: Language, offer: Offer | None = None) -> Trouble:
    """Return the trouble by which a payer is told of a refusal."""
    if is_away(refusal):
        return Trouble(language.say(_UNKNOWN))
    if offer is not None and is_the_payees(refusal, offer):
        trouble = Trouble(language.say(_PAYEE_AWAY))
    elif refusal.code == "invalid_amount":
        example = amount_example(offer.currency if offer is not None else "")
        trouble = Trouble(
            language.say(_AMOUNT_FAULTS.get(refusal.extra.get("fault", ""), _AMOUNT), example=example),
            "amount",
        )
    elif (known := _SENTENCES.get(refusal.code)) is not None:
        trouble = known._replace(sentence=language.say(known.sentence) + _figure(refusal, language, offer))
    else:
        # A refusal that is not foreseen here has a sentence of its own, in English.
        trouble = Trouble(refusal.detail if language.code == "en" else language.say(_OTHER))
    if refusal.retry_after is not None:
        wait = language.wait(max(1, math.ceil(refusal.retry_after)))
        trouble = trouble._replace(sentence=language.say(_LATER, sentence=trouble.sentence, wait=wait))
    return trouble


def _figure(refusal: Refusal, language: Language, offer: Offer | None) -> str:
    """Return how much a limit leaves, if the refusal tells it."""
    member, sentence = _FIGURES.get(refusal.code, ("", ""))
    figure = refusal.extra.get(member)
    if offer is None or not isinstance(figure, int):
        return ""
    return f" {language.say(sentence, amount=language.amount(figure, offer.currency))}"


def heading_of(refusal: Refusal, language: Language) -> str:
    """Return the heading of a page that tells of nothing but a refusal."""
    return language.say(_HEADINGS.get(refusal.code, _OTHER_HEADING))


def sentence_of(refusal: Refusal, language: Language) -> str:
    """Return the sentence of a page that tells of nothing but a refusal, where no payment was asked for."""
    return language.say(_AWAY) if is_away(refusal) else trouble_of(refusal, language).sentence


def closed_words(state: str, language: Language) -> tuple[str, str]:
    """Return the heading and the sentence for a code in a state other than open."""
    heading, sentence = _CLOSED.get(state, _WITHDRAWN)
    return language.say(heading), language.say(sentence)


def broken_words(number: str, language: Language) -> tuple[str, str]:
    """Return the heading and the sentence for a fault of ours; `number` is that of the request."""
    heading, sentence = _BROKEN
    return language.say(heading), language.say(sentence, number=number)


def amount_example(currency: str) -> str:
    """Return an amount as somebody may type it."""
    places = decimals(currency)
    return f"12.{'5'.ljust(places, '0')}" if places else "12"


@cache
def phone_examples() -> PhoneExamples:
    """Return a phone of the country whose phones need no country code here."""
    region = phonenumbers.region_code_for_country_code(int(HOME_PREFIX))
    number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    if number is None:
        raise LookupError(f"no phone is known in {region}")
    national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    return PhoneExamples(national, phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL))


def is_away(refusal: Refusal) -> bool:
    """Whether a refusal says that a part of the service is away: a payment that was sent may then have been made."""
    unavailable = problem_type(refusal.code).status == web.HTTPServiceUnavailable.status_code
    return unavailable and refusal.code not in _SENTENCES


def is_the_payees(refusal: Refusal, offer: Offer) -> bool:
    """Whether a refusal of an open code lies with the payee, so that no payer can mend it."""
    if refusal.code in {"account_frozen", "account_closed"}:
        return bool(refusal.extra.get("account") == offer.payee_user.account)
    return (
        refusal.code in {"qr_not_active", "link_not_active", "payee_not_verified"} and offer.state == "open"
    )
