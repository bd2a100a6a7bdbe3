"""Merchants' QR codes: making them, drawing them, paying them."""

from __future__ import annotations

import io
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import segno

from core.audit import by_user
from core.errors import Refusal
from core.payables.kinds import QR_GONE
from core.payables.pay import Key, pay
from core.payables.payables import NO_PURPOSE, NewPayable, Purpose, new_code, store
from core.wallets.kyc import require_kyc
from core.wallets.merchants import require_merchant, require_seller
from core.wallets.notifications import announce

if TYPE_CHECKING:
    from core.payables.kinds import Order
    from core.payables.payables import ToPay
    from core.payables.payments import Paid
    from core.platform import Platform
    from core.wallets.users import User

PREFIX: Final = "PAY:v1;code="
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Pixels or units of an image a module. A code of 44 characters has 33 modules and a margin of 4 on each side.
MAX_SCALE: Final = 20

Mode = Literal["dynamic", "static"]
Status = Literal["active", "used", "expired", "canceled", "rejected"]
_STATUSES: Final[dict[str, Status]] = {"open": "active", "paid": "used"}


class QrCode(NamedTuple):
    """A code as its merchant sees it; `amount` in minor units, 0 where the payer decides."""

    status: str
    mode: Mode
    amount: int
    currency: str
    expires_at: datetime
    purpose: Purpose


async def create_qr(
    platform: Platform, merchant: User, amount: int, currency: str, mode: Mode, purpose: Purpose = NO_PURPOSE
) -> tuple[str, datetime]:
    """Make a code to pay once for `amount` minor units (dynamic), or many times for amounts of the payers (static).

    `purpose` is shown to payers.

    Returns the text of the code, and its end. Raises Refusal `kyc_level_required`, `not_a_merchant`, and
    `currency_mismatch` for a currency that no wallet has.
    """
    require_kyc(merchant, platform.settings.kyc_min_level_for_merchant_qr)
    require_seller(merchant)
    platform.require_currency(currency)
    static = mode == "static"
    code = new_code()
    new = NewPayable(
        "qr",
        currency,
        payee_id=merchant.id,
        amount=None if static else amount,
        code=code,
        reusable=static,
        life=timedelta(minutes=platform.settings.qr_expiry_minutes),
        details=purpose.details(),
    )
    async with platform.database.transaction() as connection:
        stored = await store(connection, new)
        data = {"id": str(stored.id), "amount_cents": amount, "currency_code": currency, "mode": mode}
        told = await announce(
            connection, "payments.qr_create", data, [merchant], actor=by_user(merchant.id), about=merchant.id
        )
    platform.wake(told)
    return PREFIX + code, stored.expires_at or stored.created_at


async def find_qr(platform: Platform, merchant: User, text: str) -> QrCode:
    """Return a code of the merchant; a code past its end is `expired`, marked or not.

    Raises Refusal `not_a_merchant`, `invalid_qr_format`, `qr_not_found` (for other merchants' codes, too).
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
        payable.purpose,
    )


def draw(text: str, kind: Literal["svg", "png"], scale: int) -> bytes:
    """Return the image of a code's text; `scale` is pixels a module, 1 to MAX_SCALE."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind=kind, scale=min(max(scale, 1), MAX_SCALE))
    return out.getvalue()


async def pay_qr(
    platform: Platform, payer: User, text: str, amount: int | None, key: str, *, known: ToPay | None = None
) -> Paid:
    """Pay a code. `amount` in minor units counts for a static code only; the fee is a part of the same transfer.

    `known` is a payable that was just read; it saves the look where it has this code. Raises Refusal
    `invalid_qr_format`, and as `core.payables.pay.pay`.
    """

    async def find() -> Order:
        code = _code_in(text)
        found = None if code is None else await platform.payables.to_pay_by_code(code, known)
        if found is None or found.payable.kind != "qr" or found.payee is None:
            raise Refusal(*QR_GONE)
        return found.order(payer, found.payee, amount, (text, amount), object_id=None)

    return await pay(platform, "qr", payer, Key.of(payer, key), find)


def _code_in(text: str) -> str | None:
    """Return the code in a text, None for an impossible code. Raises Refusal `invalid_qr_format`."""
    if not text.startswith(PREFIX):
        raise Refusal("invalid_qr_format", f"The text of a code begins with {PREFIX}")
    code = text.removeprefix(PREFIX)
    return code if _CODE.fullmatch(code) else None
