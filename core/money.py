"""Money: integers in the currency's minor unit. No float touches an amount anywhere."""

from __future__ import annotations

import re

from core.errors import Refusal

# bigint of PostgreSQL; one amount and one balance both fit.
MAX_AMOUNT_MINOR = 2**63 - 1
MAX_EXPONENT = 18
_BASIS = 10_000

_CURRENCY = re.compile(r"[A-Z0-9]{3,12}")
_DECIMAL = re.compile(r"(-?)([0-9]{1,19})(?:\.([0-9]{1,18}))?")


def check_amount(amount_minor: int, name: str = "amount") -> int:
    """Return `amount_minor` if it is between 1 and MAX_AMOUNT_MINOR; else raise Refusal `invalid_request`."""
    if not 1 <= amount_minor <= MAX_AMOUNT_MINOR:
        raise Refusal(
            "invalid_request", f"{name} is a whole number from 1 to {MAX_AMOUNT_MINOR}.", field=name
        )
    return amount_minor


def check_currency(code: str, name: str = "currency") -> str:
    """Return `code` if it is 3 to 12 upper-case ASCII letters or digits; else raise Refusal `invalid_request`.

    ISO 4217 codes are three letters; points, tokens and test currencies may be longer.
    """
    if not _CURRENCY.fullmatch(code):
        raise Refusal(
            "invalid_request", f"{name} is 3 to 12 upper-case letters or digits, like EUR.", field=name
        )
    return code


def fee(amount_minor: int, bps: int) -> int:
    """Return `bps` ten-thousandths of `amount_minor`, half a unit rounded up; 0 if either is not positive.

    The formula of the wallet contract, section 3. Never more than the amount for up to 10,000 basis points.
    """
    if bps <= 0 or amount_minor <= 0:
        return 0
    return (amount_minor * bps + _BASIS // 2) // _BASIS


def minor_of(text: str, exponent: int) -> int:
    """Return the minor units of a decimal text like `12.50`; `exponent` is the currency's (2 for EUR, 0 for JPY).

    Raises Refusal `invalid_request` for anything else than digits with one point, for digits below the minor unit
    (zeros apart, so that `1.500` is fine) and beyond MAX_AMOUNT_MINOR.
    """
    match = _DECIMAL.fullmatch(text)
    fraction = (match[3] or "").rstrip("0") if match else ""
    if match is None or len(fraction) > exponent:
        raise Refusal(
            "invalid_request", f"An amount is digits with at most {exponent} of them after the point."
        )
    minor = int(match[2] + fraction.ljust(exponent, "0"))
    if minor > MAX_AMOUNT_MINOR:
        raise Refusal("invalid_request", f"An amount is at most {MAX_AMOUNT_MINOR} minor units.")
    return -minor if match[1] else minor


def decimal_of(amount_minor: int, exponent: int) -> str:
    """Return minor units as a decimal text with exactly `exponent` digits after the point."""
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}" if exponent else f"{sign}{digits}"
