"""Fees: basis points of an amount, rounded half up to a minor unit (the wallet contract, section 3)."""

from __future__ import annotations

from typing import Final

BASIS: Final = 10_000


def fee(amount: int, basis_points: int) -> int:
    """Return the fee on `amount` minor units; 0 for a rate or an amount of zero or less.

    >>> fee(333, 150)
    5
    """
    if amount <= 0 or basis_points <= 0:
        return 0
    return (amount * basis_points + BASIS // 2) // BASIS
