"""A wallet as its user sees it: the balance, and the entries, newest first."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from core.database import queries
from core.wallets.users import User, user_of

if TYPE_CHECKING:
    from core.platform import Platform

_sql = queries(__name__)


class Balance(NamedTuple):
    """The money in a wallet, in minor units, and the number of the wallet's entries."""

    balance: int
    held: int
    currency: str
    entries: int


class Entry(NamedTuple):
    """An entry of a wallet: minor units, positive for money that came and negative for money that went.

    `is_fee` tells a payment's fee from its amount. `purpose` is the text of what was paid, and `other` the user on the
    other side, None for the platform's own accounts.
    """

    transfer_id: UUID
    kind: str
    amount: int
    recorded_at: datetime
    version: int
    is_fee: bool
    purpose: str | None
    other: User | None


async def read_balance(platform: Platform, user: User) -> Balance:
    """Return the balance of a user's wallet."""
    row = await platform.database.fetchrow(_sql.wallet_balance, user.account)
    if row is None:
        raise LookupError(f"user {user.id} has no wallet")
    return Balance(row["balance"], row["held"], row["currency"], row["version"])


async def read_entries(platform: Platform, user: User, *, newest: int, count: int) -> list[Entry]:
    """Return `count` entries from the version `newest` down."""
    if newest < 1 or count < 1:
        return []
    oldest = max(1, newest - count + 1)
    rows = await platform.database.fetch(_sql.wallet_entries, user.account, newest, oldest)
    return [
        Entry(
            row["transfer_id"],
            row["kind"],
            row["amount"],
            row["recorded_at"],
            row["version"],
            row["is_fee"],
            row["purpose"],
            None if row["id"] is None else user_of(row),
        )
        for row in rows
    ]
