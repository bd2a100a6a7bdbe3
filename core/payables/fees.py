"""Fees: basis points of an amount, rounded half up to a minor unit (the wallet contract, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.wallets.config import PlatformConfig
    from core.wallets.users import User

BASIS: Final = 10_000


def fee(amount: int, basis_points: int) -> int:
    """Return the fee on `amount` minor units; 0 for a rate or an amount of zero or less.

    >>> fee(333, 150)
    5
    """
    if amount <= 0 or basis_points <= 0:
        return 0
    return (amount * basis_points + BASIS // 2) // BASIS


def merchant_fee(config: PlatformConfig, merchant: User, amount: int) -> int:
    """Return the fee on `amount` minor units paid to `merchant`: by the merchant's own rate or else the platform's."""
    own = merchant.merchant_fee_bps
    return fee(amount, config.merchant_fee_bps if own is None else own)
