"""Amounts of orders: decimals with eight places and no currency, kept as whole numbers of 10 to the power of -8."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final

from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR, decimals
from core.payments.rules import NO_CURRENCY

SCALE: Final = 8
_UNIT: Final = Decimal(1).scaleb(-SCALE)
_MOST: Final = Decimal(MAX_AMOUNT_MINOR).scaleb(-SCALE, Context(prec=40))
# The largest amount has 19 digits; rounding may need one more.
_EXACT: Final = Context(prec=40)


def units_of(amount: Decimal, field: str) -> int:
    """Return an amount in units of 10 ** -8, further digits rounded half up, as the old service's column did.

    Raises Refusal `invalid_request` for one that is not above zero then, or beyond the ledger's bounds.
    """
    if not amount.is_finite() or not 0 < amount <= _MOST:
        raise Refusal("invalid_request", f"{field} must be above zero and at most {_MOST:f}.", field=field)
    units = int(amount.quantize(_UNIT, ROUND_HALF_UP, _EXACT).scaleb(SCALE, _EXACT))
    if not 0 < units <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_request", f"{field} must be at least {_UNIT:f}.", field=field)
    return units


def minor_of(units: int, currency: str) -> int:
    """Return units in the minor unit of `currency`. Raises Refusal `invalid_request` for a part of that."""
    if currency == NO_CURRENCY:
        return units
    places = decimals(currency)
    unit: int = 10 ** (SCALE - places)
    minor, rest = divmod(units, unit)
    if rest:
        raise Refusal("invalid_request", f"An amount in {currency} has at most {places} decimals.")
    return minor


def text_of(units: int, scale: int) -> str:
    """Return an amount with eight decimals.

    >>> text_of(1_000_000_000, 8)
    '10.00000000'
    """
    return f"{_decimal(units, scale):.{SCALE}f}"


def number_of(units: int, scale: int) -> str:
    """Return an amount as its JSON number: exact, with one decimal at least and no zeros behind it.

    >>> number_of(1_000_000_000, 8), number_of(1, 8)
    ('10.0', '0.00000001')
    """
    whole, _, part = text_of(units, scale).partition(".")
    return f"{whole}.{part.rstrip('0') or '0'}"


def _decimal(units: int, scale: int) -> Decimal:
    return Decimal(units).scaleb(-scale, _EXACT)
