"""Phones: one form for each SIM, the spellings under which older rows may be stored, and who may get messages.

A number that the tables of libphonenumber know is stored in its E.164 form, so `+963 (0) 944 …` and `+9630944…` are
one person. A number that they do not know stays as its caller spelled it, since the wallet contract takes any plus with
digits (section 0).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final, NamedTuple

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType

# The contract's home country, whose numbers may be written with a 0 in the place of +963.
HOME_REGION: Final = "SY"
HOME_PREFIX: Final = "+963"
LEAST_NATIONAL_DIGITS: Final = 9
# A longer text holds more than one number and its punctuation.
MAX_CHARACTERS: Final = 64
# A parse takes 40 us and is asked for by each payment to a phone.
MAX_REMEMBERED: Final = 10_000
# A form loses one wrong trunk prefix a turn, and each turn makes it shorter.
_MOST_TURNS: Final = 4

_INTERNATIONAL = re.compile(r"\+[0-9]{6,31}")
_SPELLING = re.compile(r"\+?[0-9]{1,31}")
# Blanks, dashes and marks that nobody sees are found by their category. Letters, commas and `#` begin an extension.
_BETWEEN: Final = frozenset("()[]./\u2212\u30fc\u00b7")
# E.164 has 15 digits at most, and one more may be a trunk prefix. With something between them, more are two numbers.
_MOST_DIGITS: Final = 16
_OPTIONAL_TRUNK: Final = re.compile(r"\(\s*0\s*\)")
# The owners of these numbers earn by every message, so a swindler would have us send them some.
_EXPENSIVE = frozenset(
    {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.UAN, PhoneNumberType.PAGER}
)


class Spellings(NamedTuple):
    """The spellings of one phone in the order in which stored rows are looked for.

    Rows of before this module may have the caller's spelling, or the E.164 form with the country's trunk prefix in it.
    """

    given: str
    normalized: str
    with_trunk: str


def western(text: str) -> str:
    """Return a text with the digits 0 to 9 in the place of those of other scripts."""
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character for character in text
    )


def is_international(text: str) -> bool:
    """Whether `text` is a phone as the contract writes it: a plus and 6 to 31 digits."""
    return _INTERNATIONAL.fullmatch(text) is not None


@functools.lru_cache(MAX_REMEMBERED)
def cleaned(text: str) -> str:
    """Return a phone without blanks, dashes and brackets, its digits as 0 to 9; empty for none, or for two.

    A text with an extension is none: its digits would make the number of somebody else.

    >>> cleaned(" +963 (944) 123-456 "), cleaned("+963944123456 ext. 7")
    ('+963944123456', '')
    """
    if len(text) > MAX_CHARACTERS:
        return ""
    plain = western(unicodedata.normalize("NFKC", text).strip())
    if plain[:4].casefold() == "tel:":
        plain = plain[4:]
    whole = _squeezed(plain)
    # `+44 (0)20 …` has a zero that is not dialled from abroad; Italy's zero is, and makes the better number there.
    without = _squeezed(_OPTIONAL_TRUNK.sub("", plain, count=1))
    if without != whole and _is_valid(without) and not _is_valid(whole):
        return without
    return whole if _is_one(plain, whole) else ""


@functools.lru_cache(MAX_REMEMBERED)
def normalized(text: str) -> str:
    """Return the phone in `text` as it is stored, empty if there is none.

    >>> normalized("0944 123 456"), normalized("+963 0 944 123 456"), normalized("+39 06 1234 5678")
    ('+963944123456', '+963944123456', '+390612345678')
    >>> normalized("00999-123"), normalized("none")
    ('+999123', '')
    """
    phone = cleaned(text)
    if phone.startswith("00"):
        phone = f"+{phone[2:]}"
    elif phone.startswith("0") and len(phone) >= LEAST_NATIONAL_DIGITS:
        phone = HOME_PREFIX + phone[1:]
    elif phone and not phone.startswith("+"):
        number = _parsed(phone, HOME_REGION)
        if number is not None and phonenumbers.is_valid_number(number):
            phone = _e164(number)
    if _SPELLING.fullmatch(phone) is None:
        return ""
    for _ in range(_MOST_TURNS):
        number = _parsed(phone)
        if number is None or (form := _e164(number)) == phone:
            break
        phone = form
    return phone


def spellings(text: str) -> Spellings:
    """Return the spellings under which the user of a phone may be stored; a text without a phone stands for itself."""
    form = normalized(text)
    number = _parsed(form)
    if not form or number is None:
        return Spellings(cleaned(text) or text, form or text, form or text)
    region = phonenumbers.region_code_for_country_code(number.country_code or 0)
    trunk = phonenumbers.ndd_prefix_for_region(region, True) or ""
    national = phonenumbers.national_significant_number(number)
    return Spellings(cleaned(text), form, f"+{number.country_code}{trunk}{national}")


def may_get_messages(phone: str) -> bool:
    """Whether a message to this phone can arrive, and costs what a message costs (libphonenumber's tables)."""
    number = _parsed(phone)
    return (
        number is not None
        and phonenumbers.is_possible_number(number)
        and phonenumbers.number_type(number) not in _EXPENSIVE
    )


def masked(phone: str) -> str:
    """Return a phone as a log or a stranger may see it: the country's digits and the last two."""
    return f"{phone[:4]}…{phone[-2:]}"


def _squeezed(text: str) -> str:
    """Return the digits of a text and its plus, empty where the text holds more than a phone and its punctuation."""
    found: list[str] = []
    for character in text:
        if character.isdecimal() or (character == "+" and not found):
            found.append(character)
        elif (
            not character.isspace()
            and character not in _BETWEEN
            and unicodedata.category(character) not in {"Cf", "Pd"}
        ):
            return ""
    return "".join(found)


def _is_one(text: str, phone: str) -> bool:
    """Whether a text is one number: two, joined, would be the number of nobody, or of somebody else.

    A slash stands between two numbers or within one, which the tables then know.
    """
    if "/" in text:
        number = _parsed(phone, HOME_REGION)
        return text.count("/") == 1 and number is not None and phonenumbers.is_valid_number(number)
    return text == phone or len(phone.lstrip("+0")) <= _MOST_DIGITS


def _is_valid(phone: str) -> bool:
    number = _parsed(phone)
    return number is not None and phonenumbers.is_valid_number(number)


def _parsed(phone: str, region: str | None = None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(phone, region)
    except phonenumbers.NumberParseException:
        return None


def _e164(number: PhoneNumber) -> str:
    form: str = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return form
