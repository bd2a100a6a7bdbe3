"""Customers who show a code of their own (consumer-presented mode), and merchants who scan it to ask for money."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from core import metrics
from core.audit import audited, by_user
from core.errors import Refusal
from core.money import MAX_AMOUNT_MINOR
from core.payables.payables import NewPayable, RequestKey, create, with_metadata
from core.wallets.merchants import require_merchant
from core.wallets.notifications import tell_all, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.platform import Platform
    from core.wallets.users import User

PHONE_PREFIX: Final = "CPM:v1;phone="
ID_PREFIX: Final = "CPM:v1;id="
EVENT: Final = "payments.cpm_request"
_PHONE = re.compile(r"\+[0-9]{6,31}")


class Scanned(NamedTuple):
    """What a merchant asks for: minor units, of whom a code tells."""

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


def scanned(body: Mapping[str, Any]) -> Scanned:
    """Read what a till sends; the amount has to be a whole JSON number. Raises Refusal `invalid_payload`."""
    amount, text = body.get("amount_cents"), body.get("code") or body.get("scanned_text")
    if not isinstance(amount, int) or not 0 < amount <= MAX_AMOUNT_MINOR:
        raise Refusal("invalid_payload", "Send amount_cents, a whole number above 0.")
    if not isinstance(text, str) or not text:
        raise Refusal("invalid_payload", "Send the scanned text.")
    return Scanned(int(amount), text)


async def request_payment(platform: Platform, merchant: User, asked: Scanned, key: str | None) -> UUID:
    """Ask the customer whose code was scanned for money; return the id of the payment request.

    A phone that nobody has signed in with gets its user and wallet now, as the contract has it. Raises Refusal
    `invalid_phone_format`, `target_not_found`, `unsupported_cpm_format`, `idempotency_conflict`.
    """
    require_merchant(merchant)
    target = await _customer(platform, merchant, asked.text)
    minutes = platform.settings.request_expiry_minutes
    new = NewPayable(
        "request",
        platform.currency,
        payee_id=merchant.id,
        payer_id=target.id,
        amount=asked.amount,
        expires_at=datetime.now(UTC) + timedelta(minutes=minutes) if minutes else None,
        details=with_metadata({"source": "cpm", "via": "pos"}),
    )
    request_key = None if key is None else RequestKey(merchant.principal_id, key, ("cpm", *asked))
    told = False
    async with platform.database.transaction() as connection:
        payable_id, is_new = await create(connection, new, key=request_key)
        if is_new:
            request_id = str(payable_id)
            data = {"id": request_id, "amount_cents": asked.amount}
            entry = audited(EVENT, by_user(merchant.id), data, user_id=target.id, object_id=request_id)
            events = tell_all((merchant, target), EVENT, data, object_id=request_id)
            told = await write(connection, events, [entry])
    if told:
        platform.wake()
    if is_new:
        metrics.PAYMENT_REQUESTS.add("create")
    return payable_id


async def _customer(platform: Platform, merchant: User, text: str) -> User:
    if text.startswith(PHONE_PREFIX):
        phone = text.removeprefix(PHONE_PREFIX)
        if not _PHONE.fullmatch(phone):
            raise Refusal("invalid_phone_format", "A phone is a plus and 6 to 31 digits.")
        return await platform.users.ensure(phone, actor=by_user(merchant.id))
    if not text.startswith(ID_PREFIX):
        raise Refusal("unsupported_cpm_format", f"A code begins with {PHONE_PREFIX} or {ID_PREFIX}")
    try:
        found = await platform.users.by_id(UUID(text.removeprefix(ID_PREFIX)))
    except ValueError:
        found = None
    if found is None:
        raise Refusal("target_not_found", "Nobody has this id.")
    return found
