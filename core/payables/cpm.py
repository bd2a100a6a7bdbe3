"""Customers who show a code of their own (consumer-presented mode), and merchants who scan it to ask for money."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from core.audit import by_user
from core.errors import Refusal
from core.payables import demands
from core.payables.payables import MERCHANT, NewPayable, RequestKey, answered, with_metadata
from core.phones import cleaned, is_international
from core.wallets.merchants import require_seller

if TYPE_CHECKING:
    from core.platform import Platform
    from core.wallets.users import User

PHONE_PREFIX: Final = "CPM:v1;phone="
ID_PREFIX: Final = "CPM:v1;id="
EVENT: Final = "payments.cpm_request"


class Scanned(NamedTuple):
    """The amount that a merchant asks for, in minor units, and the text of the customer's code."""

    amount: int
    text: str


def customer_code(user: User, form: str) -> str:
    """Return the text that a customer shows, by phone or by id. Raises Refusal `invalid_format` for another form."""
    match form:
        case "phone":
            return PHONE_PREFIX + user.phone
        case "id":
            return f"{ID_PREFIX}{user.id}"
    raise Refusal("invalid_format", "The formats are phone and id.")


async def request_payment(platform: Platform, merchant: User, scanned: Scanned, key: str | None) -> UUID:
    """Ask the customer whose code was scanned for money; return the id of the payment request.

    A phone without a user gets a user and a wallet now, as the contract has it. Raises Refusal
    `invalid_phone_format`, `target_not_found`, `unsupported_cpm_format`, `idempotency_conflict`.
    """
    request_key = None if key is None else RequestKey(merchant.principal_id, key, ("cpm", *scanned))
    if not merchant.sells:
        stored = None if request_key is None else await answered(platform.database, request_key)
        if stored is not None:
            return stored.id
    require_seller(merchant)
    target = await _customer(platform, merchant, scanned.text)
    minutes = platform.settings.request_expiry_minutes
    new = NewPayable(
        "request",
        platform.currency,
        payee_id=merchant.id,
        payer_id=target.id,
        amount=scanned.amount,
        life=timedelta(minutes=minutes) if minutes else None,
        details={**with_metadata({"source": "cpm", "via": "pos"}), "collects": MERCHANT},
    )
    stored = await demands.store(
        platform, new, merchant, target, EVENT, key=request_key, actor=by_user(merchant.id)
    )
    return stored.id


async def _customer(platform: Platform, merchant: User, text: str) -> User:
    if text.startswith(PHONE_PREFIX):
        phone = cleaned(text.removeprefix(PHONE_PREFIX))
        if not is_international(phone):
            raise Refusal("invalid_phone_format", "A phone is a plus and 6 to 31 digits.")
        return await platform.users.ensure(phone, actor=by_user(merchant.id))
    if not text.startswith(ID_PREFIX):
        raise Refusal("unsupported_cpm_format", f"A code begins with {PHONE_PREFIX} or {ID_PREFIX}")
    try:
        found = await platform.users.by_id(UUID(text.removeprefix(ID_PREFIX)))
    except ValueError:
        found = None
    if found is None:
        raise Refusal("target_not_found", "There is no user with this id.")
    return found
