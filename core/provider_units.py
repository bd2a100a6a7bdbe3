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
    from decimal import Decimal

# No amount of a provider is written with so many digits. A number beyond would cost memory before it is refused.
MOST_DIGITS: Final = 40


class UnknownUnitError(ValueError):
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

# PayPal's currencies, by the decimal places that its texts may have. HUF, JPY and TWD come without any
# (https://developer.paypal.com/api/rest/reference/currency-codes/).
_PAYPAL: Final = _digits(
    {
        0: "HUF JPY TWD",
        2: "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD ILS MXN MYR NOK NZD PHP PLN SEK SGD THB USD",
    }
)

# CloudPayments writes numbers with two places (https://developers.cloudpayments.ru/en/#currencies). A currency whose
# places it does not tell is left out.
_CLOUDPAYMENTS: Final = _digits(
    {2: "AED AMD AZN BRL BYN CAD CHF CNY CZK EUR GBP GEL INR KGS KZT PLN RUB SEK TRY UAH USD UZS ZAR"}
)

# The bank pays in tenge and knows hundredths of it.
_KASPI: Final = _digits({2: "KZT"})

# The simulator counts as the ledger does, in every currency that another provider has, and in those of the wallets.
_SIMULATOR: Final = {
    currency: decimals(currency) for currency in {*_STRIPE, *_CLOUDPAYMENTS, "IQD", "LYD", "SYP"}
}

UNITS: Final[Mapping[str, Mapping[str, int]]] = {
    "stripe": _STRIPE,
    "paypal": _PAYPAL,
    "cloudpayments": _CLOUDPAYMENTS,
    "kaspi": _KASPI,
    "simulator": _SIMULATOR,
}


def to_ledger(provider: str, amount: int, currency: str) -> int:
    """Return a provider's `amount`, in its unit of `currency` (upper case), in the ledger's minor unit.

    Raises UnknownUnitError for a currency that the table does not know for this provider, for an amount between two of
    the ledger's units, and for one that is too large.
    """
    # The ledger's digits are more (MGA), as many, or fewer (ISK) than the provider's.
    digits = _digits_of(provider, currency)
    converted, rest = divmod(amount * 10 ** decimals(currency), 10**digits)
    if rest:
        raise UnknownUnitError(f"{amount} of {provider}'s units of {currency} are no whole minor units")
    if abs(converted) > MAX_AMOUNT_MINOR:
        raise UnknownUnitError(f"{amount} of {provider}'s units of {currency} are more than an account holds")
    return int(converted)


def from_ledger(provider: str, amount: int, currency: str) -> int:
    """Return an `amount` of the ledger in the provider's unit of `currency` (upper case).

    Raises UnknownUnitError for a currency that the table does not know for this provider, and for an amount that the
    provider cannot write.
    """
    digits = _digits_of(provider, currency)
    converted, rest = divmod(amount * 10**digits, 10 ** decimals(currency))
    if rest:
        raise UnknownUnitError(f"{provider} cannot write {amount} minor units of {currency}")
    return int(converted)


def read_decimal(provider: str, value: Decimal, currency: str) -> int:
    """Return a provider's decimal number of `currency` (upper case) in the ledger's minor unit.

    The number is exact: it is never a float. Raises UnknownUnitError like `to_ledger`.
    """
    sign, written, exponent = value.as_tuple()
    if not isinstance(exponent, int) or len(written) + abs(exponent) > MOST_DIGITS:
        raise UnknownUnitError(f"{provider} has sent an amount of {currency} that is none")
    digits = _digits_of(provider, currency)
    number = int("".join(map(str, written)))
    units, rest = divmod(number * 10 ** max(0, digits + exponent), 10 ** max(0, -digits - exponent))
    if rest:
        raise UnknownUnitError(f"{value} {currency} has more places than {provider} writes")
    return to_ledger(provider, -units if sign else units, currency)


def write_decimal(provider: str, amount: int, currency: str) -> str:
    """Return an `amount` of the ledger, which is not negative, as the provider's decimal text: `19.90`, `500`.

    Raises UnknownUnitError like `from_ledger`.
    """
    digits = _digits_of(provider, currency)
    whole, part = divmod(from_ledger(provider, amount, currency), 10**digits)
    return f"{whole}.{part:0{digits}d}" if digits else str(whole)


def _digits_of(provider: str, currency: str) -> int:
    digits = UNITS[provider].get(currency)
    if digits is None:
        raise UnknownUnitError(f"the unit in which {provider} writes {currency} is not known")
    return digits
