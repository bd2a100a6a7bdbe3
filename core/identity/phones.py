"""Phones: one spelling for each, after the wallet contract (section 1.1), and a check that one may get messages."""

from __future__ import annotations

import re
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumberType

# The contract's home country, whose numbers may be written with a 0 in the place of +963.
HOME_PREFIX: Final = "+963"
LEAST_NATIONAL_DIGITS: Final = 9

_SPELLING = re.compile(r"\+?[0-9]{1,31}")
# The owners of these numbers earn by every message, so a swindler would have us send them some.
_EXPENSIVE = frozenset(
    {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.UAN, PhoneNumberType.PAGER}
)


def normalized(text: str) -> str:
    """Return the phone in `text` as it is stored, empty if there is none.

    >>> normalized("0944 123 456"), normalized("00963-944"), normalized("+963 (944)"), normalized("none")
    ('+963944123456', '+963944', '+963944', '')
    """
    phone = re.sub(r"[^0-9+]", "", text)
    if phone.startswith("00"):
        phone = f"+{phone[2:]}"
    elif phone.startswith("0") and len(phone) >= LEAST_NATIONAL_DIGITS:
        phone = HOME_PREFIX + phone[1:]
    return phone if _SPELLING.fullmatch(phone) else ""


def may_get_messages(phone: str) -> bool:
    """Whether a message to this phone can arrive, and costs what a message costs (libphonenumber's tables)."""
    try:
        number = phonenumbers.parse(phone, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(number) and phonenumbers.number_type(number) not in _EXPENSIVE


def masked(phone: str) -> str:
    """Return a phone as a log may show it: the country's digits and the last two."""
    return f"{phone[:4]}…{phone[-2:]}"
