"""Payment links: a payer with the code pays its owner, once (dynamic: with an amount) or any number of times (static).

The owner need not be a merchant, and pays the merchants' fee all the same (wallet contract, section 3).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from core import metrics
from core.audit import by_user
from core.errors import Refusal
from core.payables import payables
from core.payables.kinds import LINK_GONE
from core.payables.pay import Key, pay
from core.payables.payables import NO_PURPOSE, NewPayable
from core.wallets.kyc import require_kyc
from core.wallets.notifications import announce

if TYPE_CHECKING:
    from core.payables.kinds import Order
    from core.payables.payables import Purpose, ToPay
    from core.payables.payments import Paid
    from core.platform import Platform
    from core.wallets.users import User

PREFIX: Final = "LINK:v1;code="


class Link(NamedTuple):
    """A new link: the text that its owner hands out, and its end (None: never)."""

    text: str
    expires_at: datetime | None


async def create(
    platform: Platform,
    owner: User,
    amount: int | None,
    currency: str,
    expires_in_minutes: int | None,
    purpose: Purpose = NO_PURPOSE,
) -> Link:
    """Make a link: for `amount` minor units, once, or for any amount, any number of times.

    `purpose` is shown to payers.

    Raises Refusal `kyc_level_required` (KYC_MIN_LEVEL_FOR_MERCHANT_QR), and `currency_mismatch` for a currency that no
    wallet has.
    """
    require_kyc(owner, platform.settings.kyc_min_level_for_merchant_qr)
    platform.require_currency(currency)
    minutes = expires_in_minutes
    new = NewPayable(
        kind="link",
        code=payables.new_code(),
        payee_id=owner.id,
        amount=amount,
        currency=currency,
        reusable=amount is None,
        life=None if minutes is None else timedelta(minutes=minutes),
        details=purpose.details(),
    )
    async with platform.database.transaction() as connection:
        stored = await payables.store(connection, new)
        link_id = str(stored.id)
        data = {"id": link_id, "amount_cents": amount}
        told = await announce(
            connection, "links.create", data, [owner], actor=by_user(owner.id), about=owner.id
        )
    platform.wake(told)
    metrics.PAYMENT_LINKS.add("create")
    return Link(f"{PREFIX}{new.code}", stored.expires_at)


async def pay_link(
    platform: Platform, payer: User, text: str, amount: int | None, key: str, *, known: ToPay | None = None
) -> Paid:
    """Pay a link; `amount` in minor units counts for a static link only.

    `known` is a payable that was just read; it saves the look where it has this code. Raises Refusal
    `invalid_link_format`, and as `core.payables.pay.pay`.
    """

    async def find() -> Order:
        if not text.startswith(PREFIX):
            raise Refusal("invalid_link_format", f"The code of a link begins with {PREFIX}.")
        found = await platform.payables.to_pay_by_code(text.removeprefix(PREFIX), known)
        if found is None or found.payable.kind != "link" or found.payee is None:
            raise Refusal(*LINK_GONE)
        link_id = str(found.payable.id)
        due = amount if found.payable.amount is None else found.payable.amount
        return found.order(payer, found.payee, due, (link_id, due), object_id=link_id)

    return await pay(platform, "link", payer, Key.of(payer, key), find)
