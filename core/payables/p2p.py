"""Top-ups, and payments from person to person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import metrics
from core.audit import audited, by_user
from core.errors import Refusal
from core.payables.kinds import Order
from core.payables.pay import Key, is_answered, pay
from core.payables.payments import Paid, Payment, post
from core.wallets.books import TOPUPS, system_account

if TYPE_CHECKING:
    from core.platform import Platform
    from core.wallets.users import User


async def top_up(platform: Platform, user: User, amount: int, key: str) -> Paid:
    """Put `amount` minor units into the user's own wallet, for development (DEV_ENABLE_TOPUP).

    Raises Refusal `topup_disabled`, `idempotency_conflict`.
    """
    wanted = Key.of(user, key)
    if not platform.settings.dev_enable_topup and not await is_answered(platform.database, wanted):
        raise Refusal("topup_disabled", "Top-ups are off here.")
    await platform.users.open_system_accounts()
    payment = Payment(
        id=wanted.id,
        principal_id=user.principal_id,
        kind="wallet.topup",
        source=system_account(TOPUPS, platform.currency),
        target=user.account,
        amount=amount,
        currency=platform.currency,
        identity=(amount,),
        audited=(audited("wallet.topup", by_user(user.id), {"amount_cents": amount}, user_id=user.id),),
    )
    paid = await post(platform, payment)
    if not paid.replayed:
        metrics.TRANSFERS.add("topup", "completed")
    return paid


async def transfer(platform: Platform, payer: User, to_phone: str, amount: int, key: str) -> Paid:
    """Pay `amount` minor units from one person to another.

    Raises Refusal `transfer_to_self`, `recipient_not_found`, and as `core.payables.pay.pay`.
    """

    async def find() -> Order:
        payee = await platform.users.by_phone(to_phone)
        if payee is None:
            raise Refusal("recipient_not_found", "Nobody has a wallet under this phone.")
        if payee.id == payer.id:
            raise Refusal("transfer_to_self", "A wallet cannot pay itself.")
        return Order("p2p", payer, payee, amount, platform.currency, (to_phone, amount), payer=payer)

    return await pay(platform, "p2p", payer, Key.of(payer, key), find)
