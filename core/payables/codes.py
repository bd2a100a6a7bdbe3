"""Paying by code: the offer that a code makes, its payment, the receipt. QR codes and links are alike to a payer.

The rules are those of `core.payables.qr` and `core.payables.links`, which the API's routes call, too.
"""

from __future__ import annotations

import secrets
import unicodedata
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from core.database import queries
from core.errors import Refusal
from core.ledger.accounts import STATES
from core.ledger.items import operation_id
from core.ledger.stored import load_outcomes
from core.payables import links, qr
from core.payables.kinds import KINDS
from core.payables.limits import PER_DAY, PER_TRANSFER, overstepped, payer_limits, read_outgoing
from core.payables.pay import check
from core.payables.payables import Payable, payable_of
from core.wallets.kyc import require_kyc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from core.ledger.items import ItemLimits
    from core.payables.limits import Outgoing
    from core.payables.payables import Purpose, State, ToPay
    from core.payables.payments import Paid
    from core.platform import Platform
    from core.wallets.users import User

_sql = queries(__name__)

_PREFIXES: Final = {"qr": qr.PREFIX, "link": links.PREFIX}
MAX_CODE_CHARACTERS: Final = 64
# A code with its prefix, and blanks or hyphens between its groups.
MAX_TYPED_CHARACTERS: Final = 256
# Crockford's base 32 has no letter that looks like another character.
READABLE: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SHORT_CODE_CHARACTERS: Final = 10
_ALIKE: Final = str.maketrans("oil", "011")


class Payee(NamedTuple):
    """A payee as anybody may see them: `phone` is masked, `approved` a merchant whom an administrator let in.

    `name` is a text that the payee chose; without one it is the masked phone again.
    """

    name: str
    phone: str
    approved: bool


class Offer(NamedTuple):
    """The payment that a code asks for: minor units (None: the payer decides), the payee, the end, and the state.

    `text` is the text of the QR code or link. A code that was paid once has `settled_by` and `transfer_id`.
    """

    kind: Literal["qr", "link"]
    code: str
    text: str
    payee: Payee
    payee_user: User
    amount: int | None
    currency: str
    purpose: Purpose
    state: State
    expires_at: datetime | None
    settled_by: UUID | None
    transfer_id: UUID | None
    found: ToPay


class Outlook(NamedTuple):
    """The outlook of a payment before it is made: its `obstacle`, and the payer's available minor units.

    The ledger decides in the end. It may find other obstacles, and this one may be gone by then.
    """

    obstacle: Refusal | None
    available: int | None = None


class Receipt(NamedTuple):
    """A payment as its payer keeps it, in minor units; the payee's fee is not the payer's business."""

    transfer_id: UUID
    amount: int
    currency: str
    paid_at: datetime


def new_short_code() -> str:
    """Return a code that a person reads out: ten characters of Crockford's base 32, 50 bits."""
    return "".join(secrets.choice(READABLE) for _ in range(SHORT_CODE_CHARACTERS))


def as_typed(text: str, prefix: str) -> str:
    """Return a code without what people add: the prefix of its QR text, blanks, hyphens, the case, another script.

    O stands for 0, and I and L for 1, as in Crockford's base 32.

    >>> as_typed("vchr| A1b2-c3d4 ", "VCHR|"), as_typed("LO7", "CASH|")
    ('a1b2c3d4', '107')
    """
    plain = unicodedata.normalize("NFKC", text[:MAX_TYPED_CHARACTERS]).lower()
    head, bar, rest = plain.partition(prefix[-1])
    if bar and head.strip() == prefix[:-1].lower():
        plain = rest
    plain = "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in plain
        if character.isalnum()
    )
    return plain.translate(_ALIKE)


def bare(text: str) -> str:
    """Return the code in a text, with or without the prefix of a QR code or link.

    >>> bare(" LINK:v1;code=abc "), bare("abc")
    ('abc', 'abc')
    """
    text = text.strip()
    for prefix in _PREFIXES.values():
        text = text.removeprefix(prefix)
    return text


def is_code(code: str) -> bool:
    """Whether `code` has the form of a code without its prefix: 1 to 64 printable ASCII characters."""
    return code.isascii() and code.isprintable() and 0 < len(code) <= MAX_CODE_CHARACTERS


async def find(platform: Platform, text: str) -> Offer:
    """Return the offer of a code in any state. Raises Refusal `code_not_found`."""
    code = bare(text)
    found: ToPay | None = None
    if is_code(code):
        found = await platform.payables.to_pay_by_code(code)
    if found is None or found.payee is None or (kind := found.payable.kind) not in {"qr", "link"}:
        raise Refusal("code_not_found", "There is no such code. Check the link, or scan the code again.")
    payable, payee = found.payable, found.payee
    return Offer(
        "qr" if kind == "qr" else "link",
        code,
        _PREFIXES[kind] + code,
        _payee(payee),
        payee,
        payable.amount,
        payable.currency,
        payable.purpose,
        payable.state,
        payable.expires_at,
        payable.settled_by,
        payable.transfer_id,
        found,
    )


async def list_mine(
    platform: Platform,
    owner: User,
    kind: Literal["qr", "link"],
    *,
    state: str | None = None,
    before: UUID | None = None,
    limit: int,
) -> list[Payable]:
    """Return the newest codes that a user has made: in a state, before an id (None: any)."""
    rows = await platform.database.fetch(_sql.codes_of, owner.id, kind, limit, state, before)
    return [payable_of(row) for row in rows]


async def outlook(
    platform: Platform, offer: Offer, payer: User | None = None, amount: int | None = None
) -> Outlook:
    """Return what stands in the way of an open offer, as far as it is known without the payer or with them.

    `amount` in minor units counts where the code leaves it open. Obstacles of the payee come first, since nothing
    that the payer does removes them.
    """
    rules, payee = KINDS[offer.kind], offer.payee_user
    due = amount if offer.amount is None else offer.amount
    order = offer.found.order(payer or payee, payee, due or 1, (), object_id=None)._replace(payer=payer)
    accounts = [payee.account] if payer is None else [payee.account, payer.account]
    states = {
        row["code"]: row["state"] for row in await platform.database.fetch(_sql.account_states, accounts)
    }
    try:
        check(platform, order)
        _require_open(payee, states)
        if payer is not None:
            _require_open(payer, states)
    except Refusal as refusal:
        return Outlook(refusal)
    if payer is None:
        return Outlook(None)
    outgoing = await read_outgoing(platform.database, payer.account)
    available = None if outgoing is None else outgoing.available
    try:
        require_kyc(payer, rules.level(platform.settings))
    except Refusal as refusal:
        return Outlook(refusal, available)
    if outgoing is not None and due is not None and rules.limits is not None:
        limits = outgoing.within(payer_limits(platform.settings, payer, rules.limits))
        over = overstepped(outgoing, due, limits)
        cause = next((cause for cause in rules.causes if cause in over), None)
        if cause is not None:
            figures = _figures(cause, outgoing, limits)
            return Outlook(
                Refusal(cause, "The payer cannot pay this much.", account=payer.account, **figures), available
            )
    return Outlook(None, available)


def _figures(cause: str, outgoing: Outgoing, limits: ItemLimits) -> dict[str, int]:
    """Return the members of a refusal that tell how much a limit allows at once, or what is left of it."""
    if cause == PER_TRANSFER and limits.transfer_max is not None:
        return {"limit_cents": limits.transfer_max}
    if cause == PER_DAY and limits.day_amount_max is not None:
        return {"left_cents": max(0, limits.day_amount_max - outgoing.day_sum)}
    return {}


def _payee(user: User) -> Payee:
    phone = user.masked_phone
    return Payee(user.shown_name or phone, phone, user.approved)


def _require_open(user: User, states: Mapping[str, int]) -> None:
    """Raise Refusal `account_frozen` or `account_closed` for a wallet that no money leaves or reaches."""
    state = STATES[states[user.account]] if user.account in states else "open"
    if state != "open":
        raise Refusal(f"account_{state}", f"The wallet is {state}.", account=user.account)


async def pay(platform: Platform, payer: User, offer: Offer, amount: int | None, key: str) -> Paid:
    """Pay an offer; `amount` in minor units counts where the code leaves it open. A repeated call pays nothing more.

    Raises Refusal as `core.payables.qr.pay_qr` and `core.payables.links.pay_link`.
    """
    operation = qr.pay_qr if offer.kind == "qr" else links.pay_link
    return await operation(platform, payer, offer.text, amount, key)


def payment_id(payer: User, key: str) -> UUID:
    """Return the id of the payment that a payer makes under a key."""
    return operation_id(payer.principal_id, key)


async def receipt(platform: Platform, offer: Offer, transfer_id: UUID) -> Receipt:
    """Return the receipt of a payment of a code, for a caller who may see it. Raises Refusal `receipt_not_found`."""
    outcome = (await load_outcomes(platform.database, [transfer_id])).get(transfer_id)
    if outcome is None or not outcome.posted or outcome.recorded_at is None or len(outcome.entries) <= 1:
        raise _no_receipt()
    target = outcome.entries[1]
    if target.account != offer.payee_user.account:
        raise _no_receipt()
    return Receipt(transfer_id, target.amount, offer.currency, outcome.recorded_at)


def _no_receipt() -> Refusal:
    return Refusal("receipt_not_found", "You have no such payment.")
