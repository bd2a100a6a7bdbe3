"""Provider units: the way in which each provider writes an amount of each currency.

The ledger counts in the minor units of ISO 4217 (`core.money`). Providers have minor units of their own, so every
amount that comes from a provider, or goes to one, passes through this table. A currency that the table does not know is
refused and never guessed: a wrong guess is wrong by a factor of a hundred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.money import MAX_AMOUNT_MINOR, decimals

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnknownUnitError(Exception):
    """The amount cannot be written in the ledger's unit; the text says why."""


def _digits(by_digits: Mapping[int, str]) -> dict[str, int]:
    return {currency: digits for digits, codes in by_digits.items() for currency in codes.split()}


# Stripe's presentment currencies, by the decimal digits of its unit (https://docs.stripe.com/currencies).
# - ISK and UGX have no minor unit any more. Stripe goes on with two digits, always 00 (its "special cases").
# - HUF and TWD have two digits here; payouts alone want them to be 00. MGA has none, though ISO 4217 gives it two.
# - Currencies of three digits come with a last digit of 0.
_STRIPE: Final = _digits(
    {
        0: "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF",
        2: (
            "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
            "CNY COP CRC CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS "
            "INR ISK JMD KES KGS KHR KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD "
            "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SEK SGD SHP SLE SOS SRD STD SVC "
            "SZL THB TJS TOP TRY TTD TWD TZS UAH UGX USD UYU UZS WST XCD YER ZAR ZMW"
        ),
        3: "BHD JOD KWD OMR TND",
    }
)

UNITS: Final[Mapping[str, Mapping[str, int]]] = {"stripe": _STRIPE}


def to_ledger(provider: str, amount: int, currency: str) -> int:
    """Return a provider's `amount`, in its unit of `currency` (upper case), in the ledger's minor unit.

    Raises UnknownUnitError for a currency that the table does not know for this provider, for an amount between two of
    the ledger's units, and for one that is too large.
    """
    digits = UNITS[provider].get(currency)
    if digits is None:
        raise UnknownUnitError(f"the unit in which {provider} writes {currency} is not known")
    # The ledger's digits are more (MGA), as many, or fewer (ISK) than the provider's.
    converted, rest = divmod(amount * 10 ** decimals(currency), 10**digits)
    if rest:
        raise UnknownUnitError(f"{amount} of {provider}'s units of {currency} are no whole minor units")
    if abs(converted) > MAX_AMOUNT_MINOR:
        raise UnknownUnitError(f"{amount} of {provider}'s units of {currency} are more than an account holds")
    return int(converted)
