"""Merchants' QR codes: making them, drawing them, paying them."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import segno

from core import metrics
from core.audit import audited, by_user
from core.errors import Refusal
from core.ledger.items import operation_id
from core.ledger.stored import load_outcomes
from core.payables.fees import merchant_fee
from core.payables.limits import VELOCITY_FIRST, payer_limits
from core.payables.payables import NewPayable, create, new_code
from core.payables.payments import Paid, Payment
from core.payables.risk import assess
from core.wallets.kyc import require_kyc
from core.wallets.merchants import require_merchant
from core.wallets.notifications import tell, write

if TYPE_CHECKING:
    from uuid import UUID

    from core.payables.payables import Payable, ToPay
    from core.platform import Platform
    from core.wallets.users import User

PREFIX: Final = "PAY:v1;code="
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Of an image: pixels, or units, a module. A code of 44 characters has 33 modules and a margin of 4 on each side.
MAX_SCALE: Final = 20

Mode = Literal["dynamic", "static"]
Status = Literal["active", "used", "expired", "canceled", "rejected"]
_STATUSES: Final[dict[str, Status]] = {"open": "active", "paid": "used"}


class Offer(NamedTuple):
    """A code to pay, and the merchant who gets the money."""

    payable: Payable
    merchant: User


class QrCode(NamedTuple):
    """A code as its merchant sees it; `amount` in minor units, 0 where the payer says how much."""

    status: str
    mode: Mode
    amount: int
    currency: str
    expires_at: datetime


async def create_qr(
    platform: Platform, merchant: User, amount: int, currency: str, mode: Mode
) -> tuple[str, datetime]:
    """Make a code of `amount` minor units, to be paid once (dynamic), or of what payers say, many times (static).

    Returns the text of the code, and when it expires. Raises Refusal `kyc_level_required`, `not_a_merchant`.
    """
    require_kyc(merchant, platform.settings.kyc_min_level_for_merchant_qr)
    require_merchant(merchant)
    static = mode == "static"
    expires_at = datetime.now(UTC) + timedelta(minutes=platform.settings.qr_expiry_minutes)
    code = new_code()
    new = NewPayable(
        "qr",
        currency,
        payee_id=merchant.id,
        amount=None if static else amount,
        code=code,
        reusable=static,
        expires_at=expires_at,
    )
    async with platform.database.transaction() as connection:
        payable_id, _ = await create(connection, new)
        data = {"id": str(payable_id), "amount_cents": amount, "currency_code": currency, "mode": mode}
        entry = audited(
            "payments.qr_create",
            by_user(merchant.id),
            data,
            user_id=merchant.id,
            object_id=str(payable_id),
        )
        events = tell(merchant, "payments.qr_create", data, object_id=str(payable_id))
        await write(connection, events, [entry])
    platform.wake()
    return PREFIX + code, expires_at


async def find_qr(platform: Platform, merchant: User, text: str) -> QrCode:
    """Return a code of the merchant's own: past its time it is expired, whether anybody has marked it or not.

    Raises Refusal `not_a_merchant`, `invalid_qr_format`, `qr_not_found` (other merchants' codes, too).
    """
    require_merchant(merchant)
    code = _code_in(text)
    payable = None if code is None else await platform.payables.by_code(code)
    if payable is None or payable.kind != "qr" or payable.payee_id != merchant.id:
        raise Refusal("qr_not_found", "You have no such code.")
    return QrCode(
        _STATUSES.get(payable.state, payable.state),
        "static" if payable.reusable else "dynamic",
        payable.amount or 0,
        payable.currency,
        payable.expires_at or payable.created_at,
    )


def draw(text: str, kind: Literal["svg", "png"], scale: int) -> bytes:
    """Draw a code's text; `scale` is pixels a module, 1 to MAX_SCALE."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind=kind, scale=min(max(scale, 1), MAX_SCALE))
    return out.getvalue()


def check_payer(platform: Platform, payer: User) -> None:
    """Raise Refusal `kyc_level_required` for whoever may not pay merchants: that is told before all else."""
    require_kyc(payer, platform.settings.kyc_min_level_for_merchant_pay)


async def pay_qr(
    platform: Platform, payer: User, text: str, amount: int | None, key: str, *, known: ToPay | None = None
) -> Paid:
    """Pay a code. `amount` in minor units counts for a static code only; the fee is a part of the same transfer.

    `known` is what a code was just found to ask for; it is looked for where that is another one.

    What was paid under the key before is answered again, whatever has become of the code. Raises Refusal
    `kyc_level_required`, `invalid_qr_format`, `qr_not_active`, `qr_expired`, `currency_mismatch`, `qr_amount_required`,
    `risk_blocked`, `idempotency_conflict`, and what stands in the way of the money.
    """
    check_payer(platform, payer)
    payment_id = operation_id(payer.principal_id, key)
    try:
        code = _code_in(text)
        offer = None if code is None else await platform.payables.to_pay_by_code(code, known)
        found = _qr_of(offer)
        due = _amount_due(platform, found, amount)
    except Refusal as refusal:
        if await _used(platform, payment_id):
            raise _other_request() from refusal
        raise
    payment = await payment_of(platform, payment_id, payer, found, due, (text, amount))
    try:
        await _check(platform, payer, found, due)
    except Refusal:
        # It was paid before, so nothing is left to check, and nothing more will be paid.
        if not await _used(platform, payment_id):
            raise
    try:
        paid = await platform.pay(payment)
    except Refusal as refusal:
        raise _as_told(refusal) from refusal
    if not paid.replayed:
        metrics.QR_PAYMENTS.add("completed")
        metrics.MERCHANT_GROSS.add(payment.currency, by=payment.amount)
        metrics.MERCHANT_FEES.add(payment.currency, by=payment.fee)
    return paid


def _code_in(text: str) -> str | None:
    """Return the code in a text, None for one that was never made. Raises Refusal `invalid_qr_format`."""
    if not text.startswith(PREFIX):
        raise Refusal("invalid_qr_format", f"The text of a code begins with {PREFIX}")
    code = text.removeprefix(PREFIX)
    return code if _CODE.fullmatch(code) else None


def _qr_of(found: ToPay | None) -> Offer:
    if found is None or found.payable.kind != "qr" or found.payee is None:
        raise Refusal("qr_not_active", "There is no such code to pay.")
    return Offer(found.payable, found.payee)


def _amount_due(platform: Platform, offer: Offer, amount: int | None) -> int:
    due = amount if offer.payable.amount is None else offer.payable.amount
    if due is None:
        _check_code(platform, offer)
        raise _ended(offer.payable.state) or Refusal(
            "qr_amount_required", "Say how much you pay: this code leaves it to you."
        )
    return due


def _check_code(platform: Platform, offer: Offer) -> None:
    payable, merchant = offer
    if not merchant.is_merchant:
        raise Refusal("qr_not_active", "Whoever made this code is no merchant any more.")
    if payable.currency != platform.currency:
        raise _ended(payable.state) or Refusal("currency_mismatch", f"This code is in {payable.currency}.")


def _ended(state: str) -> Refusal | None:
    """Return what the contract tells of before currency and amount; without those faults the posting finds it."""
    if state == "open":
        return None
    if state == "expired":
        return Refusal("qr_expired", "The time of this code is over.")
    return Refusal("qr_not_active", "This code was paid already, or withdrawn.")


async def payment_of(
    platform: Platform,
    payment_id: UUID,
    payer: User,
    offer: Offer,
    due: int,
    asked: tuple[str, int | None],
) -> Payment:
    """Return what paying a code posts: `due` minor units, of which the merchant gives the fee.

    `asked` is what a repeated key is compared with.
    """
    payable, merchant = offer
    taken = merchant_fee(platform.config.current, merchant, due)
    data = {
        "transfer_id": str(payment_id),
        "qr_id": str(payable.id),
        "amount_cents": due,
        "fee_cents": taken,
    }
    return Payment(
        id=payment_id,
        principal_id=payer.principal_id,
        kind="payments.qr_pay",
        source=payer.account,
        target=merchant.account,
        amount=due,
        currency=payable.currency,
        identity=asked,
        payer=payer,
        limits=payer_limits(platform.settings, payer, "qr"),
        order=VELOCITY_FIRST,
        fee=taken,
        fee_payer=merchant.account,
        fee_account=await platform.fee_account() if taken else None,
        payable=payable.id,
        settler=payer.id,
        # The bytes that the contract documents; the delivery names the transfer as its object.
        told=tell(merchant, "payments.qr_pay", {"amount_cents": due}, object_id=str(payment_id)),
        audited=(
            audited(
                "payments.qr_pay", by_user(payer.id), data, user_id=merchant.id, object_id=str(payment_id)
            ),
        ),
    )


async def _check(platform: Platform, payer: User, offer: Offer, due: int) -> None:
    _check_code(platform, offer)
    await assess(
        platform.database,
        platform.settings,
        payer,
        due,
        operation="payments.qr_pay",
        merchant=offer.merchant,
    )


async def _used(platform: Platform, payment_id: UUID) -> bool:
    return bool(await load_outcomes(platform.database, [payment_id]))


def _other_request() -> Refusal:
    return Refusal("idempotency_conflict", "This idempotency key was used for another request.")


def _as_told(refusal: Refusal) -> Refusal:
    if refusal.code in {"payable_not_open", "payable_not_found"}:
        return _ended(refusal.extra.get("state", "gone")) or refusal
    return refusal
