"""The accounts of the wallet platform: one a wallet, and one system account for each purpose and currency.

Every unit in a wallet comes from a system account, which has no floor, so the sum of all accounts is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.ledger.accounts import Limits, Opening, open_accounts
from core.ledger.items import SYSTEM_PRINCIPAL
from core.money import MAX_AMOUNT_MINOR

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from core.database import Connection, Database

TOPUPS: Final = "topups"
PROMOTIONS: Final = "promotions"  # starting credit, airdrops, demo users
VOUCHERS: Final = "vouchers"  # money of vouchers that were not redeemed yet
CASH_OUT: Final = "cash-out"  # between a customer and an agent, within one transaction
PURPOSES: Final = (TOPUPS, PROMOTIONS, VOUCHERS, CASH_OUT)

_PREFIX: Final = "wallet:"
# A limit that no payment reaches makes the ledger count outgoing money, for the limits that each payment brings.
_COUNTED: Final = Limits(day_count_max=MAX_AMOUNT_MINOR)


def wallet_account(wallet_id: UUID) -> str:
    """Return the code of a wallet's account."""
    return f"{_PREFIX}{wallet_id}"


def wallet_of(account: str) -> str | None:
    """Return the wallet id in the code of an account, None for an account without a wallet."""
    return account.removeprefix(_PREFIX) if account.startswith(_PREFIX) else None


def system_account(purpose: str, currency: str) -> str:
    """Return the code of a system account."""
    return f"system:{purpose}:{currency}"


async def open_wallet(connection: Connection, wallet_id: UUID, currency: str) -> None:
    """Open the account of a new wallet, in the transaction that makes its user."""
    await open_accounts(
        connection, [Opening(wallet_account(wallet_id), currency, _COUNTED)], SYSTEM_PRINCIPAL
    )


async def open_system_accounts(database: Database, currencies: Iterable[str]) -> None:
    """Open the system accounts of these currencies that do not exist yet."""
    openings = [
        Opening(system_account(purpose, currency), currency, Limits(floor=None))
        for currency in currencies
        for purpose in PURPOSES
    ]
    await open_accounts(database, openings, SYSTEM_PRINCIPAL)
