"""Money is whole minor units of a currency."""

from __future__ import annotations

from typing import Final

# Amounts and balances stay within 2^62 - 1 minor units, so that two of them always add up within a bigint.
MAX_AMOUNT_MINOR: Final = 2**62 - 1

# The digits of a minor unit (ISO 4217), where it is not a hundredth.
_DECIMALS: Final = {
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
}
_HUNDREDTHS: Final = 2


def decimals(currency: str) -> int:
    """Return how many digits the minor unit has."""
    return _DECIMALS.get(currency, _HUNDREDTHS)
