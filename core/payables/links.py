"""Payment links: whoever has the code pays its owner, once (dynamic: with an amount) or as often as they like (static).

The owner need not be a merchant, and pays the merchants' fee all the same (wallet contract, section 3).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from core import metrics
from core.audit import audited, by_user
from core.errors import Refusal
from core.ledger.items import operation_id
from core.payables import payables
from core.payables.fees import merchant_fee
from core.payables.limits import LIMITS_FIRST, payer_limits
from core.payables.payables import NewPayable
from core.payables.payments import Paid, Payment
from core.payables.risk import assess
from core.wallets.notifications import tell, write

if TYPE_CHECKING:
    from core.payables.payables import Payable, ToPay
    from core.platform import Platform
    from core.wallets.users import User

PREFIX: Final = "LINK:v1;code="


class Link(NamedTuple):
    """A new link: the text that its owner hands out, and when it ends (None: never)."""

    text: str
    expires_at: datetime | None


async def create(
    platform: Platform, owner: User, amount: int | None, currency: str, expires_in_minutes: int | None
) -> Link:
    """Make a link: for `amount` minor units, once, or for any amount, any number of times.

    Raises Refusal `kyc_level_required` (KYC_MIN_LEVEL_FOR_MERCHANT_QR).
    """
    _require_level(owner, platform.settings.kyc_min_level_for_merchant_qr)
    minutes = expires_in_minutes
    new = NewPayable(
        kind="link",
        code=payables.new_code(),
        payee_id=owner.id,
        amount=amount,
        currency=currency,
        reusable=amount is None,
        expires_at=None if minutes is None else datetime.now(UTC) + timedelta(minutes=minutes),
    )
    async with platform.database.transaction() as connection:
        payable_id, _ = await payables.create(connection, new)
        link_id = str(payable_id)
        data = {"id": link_id, "amount_cents": amount}
        entry = audited("links.create", by_user(owner.id), data, user_id=owner.id, object_id=link_id)
        told = await write(connection, tell(owner, "links.create", data, object_id=link_id), [entry])
    if told:
        platform.wake()
    metrics.PAYMENT_LINKS.add("create")
    return Link(f"{PREFIX}{new.code}", new.expires_at)


async def pay(
    platform: Platform, payer: User, text: str, amount: int | None, key: str, *, known: ToPay | None = None
) -> Paid:
    """Pay a link; the amount is the payer's to say for a static one only. A repeated call returns the first payment.

    `known` is what a code was just found to ask for; it is looked for where that is another one.

    Raises Refusal `kyc_level_required` (KYC_MIN_LEVEL_FOR_MERCHANT_PAY), `invalid_link_format`, `link_not_active`,
    `link_expired`, `link_amount_required`, `idempotency_conflict`, `risk_blocked`, and what stands in the way of the
    money.
    """
    _require_level(payer, platform.settings.kyc_min_level_for_merchant_pay)
    if not text.startswith(PREFIX):
        raise Refusal("invalid_link_format", f"The code of a link begins with {PREFIX}.")
    found = await platform.payables.to_pay_by_code(text.removeprefix(PREFIX), known)
    if found is None or found.payable.kind != "link" or found.payee is None:
        raise _not_active()
    owner, link = found.payee, found.payable
    due = amount if link.amount is None else link.amount
    if due is None:
        # Nothing can have been paid under this key, so the state may be told first, as in the contract.
        raise _ended(link.state) or Refusal("link_amount_required", "Say how much: this link has no amount.")
    if link.state == "open":
        await assess(platform.database, platform.settings, payer, due, operation="links.pay", merchant=owner)
    try:
        # Whether the link is still open is seen under its lock, after the key: a repeated call must find its payment.
        paid = await platform.pay(await _payment(platform, payer, owner, link, due, key))
    except Refusal as refusal:
        if refusal.code == "payable_not_open":
            raise _ended(refusal.extra["state"]) or refusal from None
        raise
    if not paid.replayed:
        metrics.PAYMENT_LINKS.add("pay")
    return paid


async def _payment(
    platform: Platform, payer: User, owner: User, link: Payable, amount: int, key: str
) -> Payment:
    transfer_id = operation_id(payer.principal_id, key)
    link_id = str(link.id)
    data = {"id": link_id, "transfer_id": str(transfer_id), "amount_cents": amount}
    return Payment(
        id=transfer_id,
        principal_id=payer.principal_id,
        kind="links.pay",
        source=payer.account,
        target=owner.account,
        amount=amount,
        currency=link.currency,
        identity=(link_id, amount),
        payer=payer,
        limits=payer_limits(platform.settings, payer),
        order=LIMITS_FIRST,
        fee=merchant_fee(platform.config.current, owner, amount),
        fee_payer=owner.account,
        fee_account=await platform.fee_account(),
        payable=link.id,
        settler=payer.id,
        told=tell(owner, "links.pay", data, object_id=link_id),
        audited=(audited("links.pay", by_user(payer.id), data, user_id=owner.id, object_id=link_id),),
    )


def _require_level(user: User, level: int) -> None:
    if user.kyc_level < level:
        raise Refusal("kyc_level_required", f"This takes KYC level {level}.")


def _ended(state: str) -> Refusal | None:
    if state == "open":
        return None
    if state == "expired":
        return Refusal("link_expired", "The link's time is over.")
    return _not_active()


def _not_active() -> Refusal:
    return Refusal("link_not_active", "There is no link of this code, or it was paid.")
