"""The fixtures of payables, which stand on wallets."""

from tests.core.payables.conftest import bank, owner

__all__ = ["bank", "owner"]
