"""Top-ups, and payments from person to person."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from core import metrics
from core.audit import audited, by_user
from core.database import queries
from core.errors import Refusal
from core.ledger.items import operation_id
from core.payables.limits import payer_limits
from core.payables.payments import Paid, Payment
from core.payables.risk import assess
from core.wallets.books import TOPUPS, system_account
from core.wallets.notifications import tell

if TYPE_CHECKING:
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)


class Standing(NamedTuple):
    """A wallet as it stands, in minor units; `entries` is how many it has."""

    balance: int
    held: int
    currency: str
    entries: int


class Entry(NamedTuple):
    """One line of a wallet: minor units that came (positive) or went."""

    transfer_id: UUID
    kind: str
    amount: int
    recorded_at: datetime
    version: int


async def standing(platform: Platform, user: User) -> Standing:
    """Return what is in a user's wallet."""
    row = await platform.database.fetchrow(_sql.wallet_standing, user.account)
    if row is None:
        raise LookupError(f"user {user.id} has no wallet")
    return Standing(row["balance"], row["held"], row["currency"], row["version"])


async def entries(platform: Platform, user: User, *, newest: int, count: int) -> list[Entry]:
    """Return `count` entries from the version `newest` down."""
    if newest < 1 or count < 1:
        return []
    oldest = max(1, newest - count + 1)
    rows = await platform.database.fetch(_sql.wallet_entries, user.account, newest, oldest)
    return [
        Entry(row["transfer_id"], row["kind"], row["amount"], row["recorded_at"], row["version"])
        for row in rows
    ]


async def top_up(platform: Platform, user: User, amount: int, key: str) -> Paid:
    """Put `amount` minor units into the user's own wallet: development only (DEV_ENABLE_TOPUP).

    Raises Refusal `topup_disabled`, `idempotency_conflict`.
    """
    if not platform.settings.dev_enable_topup:
        raise Refusal("topup_disabled", "Top-ups are off here.")
    await platform.users.open_system_accounts()
    payment = Payment(
        id=operation_id(user.principal_id, key),
        principal_id=user.principal_id,
        kind="wallet.topup",
        source=system_account(TOPUPS, platform.currency),
        target=user.account,
        amount=amount,
        currency=platform.currency,
        identity=(amount,),
        audited=(audited("wallet.topup", by_user(user.id), {"amount_cents": amount}, user_id=user.id),),
    )
    paid = await platform.pay(payment)
    if not paid.replayed:
        metrics.TRANSFERS.add("topup", "completed")
    return paid


async def transfer(platform: Platform, payer: User, to_phone: str, amount: int, key: str) -> Paid:
    """Pay `amount` minor units from one person to another.

    Raises Refusal `transfer_to_self`, `recipient_not_found`, `risk_blocked`, and what stands in the way of the money:
    `insufficient_funds`, the KYC and velocity limits, `idempotency_conflict`.
    """
    if to_phone == payer.phone:
        raise Refusal("transfer_to_self", "A wallet cannot pay itself.")
    payee = await platform.users.by_phone(to_phone)
    if payee is None:
        raise Refusal("recipient_not_found", "Nobody has a wallet under this phone.")
    await assess(platform.database, platform.settings, payer, amount, operation="wallet.transfer")
    transfer_id = operation_id(payer.principal_id, key)
    data = {"transfer_id": str(transfer_id), "amount_cents": amount}
    payment = Payment(
        id=transfer_id,
        principal_id=payer.principal_id,
        kind="wallet.transfer",
        source=payer.account,
        target=payee.account,
        amount=amount,
        currency=platform.currency,
        identity=(to_phone, amount),
        payer=payer,
        limits=payer_limits(platform.settings, payer, "p2p"),
        told=tell(payee, "wallet.transfer", data, object_id=str(transfer_id)),
        audited=(audited("wallet.transfer", by_user(payer.id), data, user_id=payee.id),),
    )
    paid = await platform.pay(payment)
    if not paid.replayed:
        metrics.TRANSFERS.add("p2p", "completed")
    return paid
